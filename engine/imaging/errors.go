package imaging

import "fmt"

// Error is an image, or an option for one, that cannot be used.
type Error struct {
	Subject  string // "png", "quality", "text keyword" ...
	Expected string
	Got      string
	Err      error // the cause, if it has one
}

// Error reads "imaging: quality: expected 1 to 100, got 101".
func (e *Error) Error() string {
	return fmt.Sprintf("imaging: %s: expected %s, got %s", e.Subject, e.Expected, e.Got)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }
