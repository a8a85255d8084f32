package weights

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// Error is a weight file that is missing, damaged or not what its index says.
type Error struct {
	File     string // the file or folder at fault
	Tensor   string // empty when the fault is not in one tensor
	Expected string
	Got      string
	Err      error // the cause, if it has one
}

// Error reads "FILE: tensor NAME: expected 8 bytes of F32 [2], got 4 bytes".
func (e *Error) Error() string {
	if e.Tensor == "" {
		return fmt.Sprintf("%s: expected %s, got %s", e.File, shorten(e.Expected), shorten(e.Got))
	}
	return fmt.Sprintf("%s: tensor %q: expected %s, got %s", e.File, shorten(e.Tensor), shorten(e.Expected), shorten(e.Got))
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// shorten bounds what a damaged file can put into an error.
func shorten(s string) string {
	const most = 500
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// reason is the cause without the path, which the Error already has.
func reason(err error) string {
	var p *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "nothing"
	case errors.Is(err, fs.ErrClosed):
		return "a closed file"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the end of the file"
	case errors.As(err, &p):
		return p.Err.Error()
	}
	return err.Error()
}
