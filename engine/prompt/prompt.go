// Package prompt reads the prompt syntax of AUTOMATIC1111's web UI: weights in brackets, BREAK, chunks of as many tokens as a text
// encoder takes, textual inversions by their words, and texts that change while a picture is drawn. It computes no states.
//
// The package may import the standard library.
package prompt

import "fmt"

// What a prompt may have. The bounds are far above what people write, and keep a hostile one from costing more than its bytes.
const (
	// MaxNesting is how many brackets may be open at once, unclosed ones among them.
	MaxNesting = 64
	// MaxWeight bounds the weight of every part, either way.
	MaxWeight = 1000
	// MaxChunks is the most chunks of one text.
	MaxChunks = 32
)

// Error is a prompt that cannot be used.
type Error struct {
	Got      string
	Expected string
}

// Error reads "expected at most 32 chunks, got 40".
func (e *Error) Error() string { return fmt.Sprintf("expected %s, got %s", e.Expected, e.Got) }

// shorten bounds what an error shows of a text.
func shorten(text string) string {
	const shown = 40
	if runes := []rune(text); len(runes) > shown {
		return fmt.Sprintf("%q...", string(runes[:shown]))
	}
	return fmt.Sprintf("%q", text)
}
