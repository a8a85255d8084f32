//go:build !linux

package limits

import (
	"errors"
	"os"
)

func adviseHuge([]byte) {}

func dropCached(*os.File) error { return errors.ErrUnsupported }
