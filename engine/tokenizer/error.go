package tokenizer

import "fmt"

// Error is a file of a tokenizer folder that cannot be used.
type Error struct {
	File     string
	Field    string // the entry at fault, empty for the whole file
	Expected string
	Got      string
	Err      error // the cause, if it has one
}

// Error reads "tokenizer/tokenizer.json: model.type: expected "BPE", got "Unigram"".
func (e *Error) Error() string {
	s := e.File + ": "
	if e.Field != "" {
		s += e.Field + ": "
	}
	return fmt.Sprintf("%sexpected %s, got %s", s, e.Expected, e.Got)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// quote shows a string of a file in quotes, shortened.
func quote(s string) string { return fmt.Sprintf("%q", shorten(s)) }

// shorten bounds what an error shows: hostile files have long strings.
func shorten(s string) string {
	const shown = 60
	if len(s) > shown {
		return fmt.Sprintf("%s... (%d bytes)", s[:shown], len(s))
	}
	return s
}
