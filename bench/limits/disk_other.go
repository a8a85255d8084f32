//go:build !linux

package limits

import (
	"errors"
	"os"
)

func dropCached(*os.File) error { return errors.ErrUnsupported }
