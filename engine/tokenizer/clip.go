// Package tokenizer turns a prompt into the token ids a CLIP text encoder takes: the byte-pair
// tokenizer of transformers 5, read from the tokenizer folder of a diffusers model.
//
// The package may import the standard library and golang.org/x/text, and of this module only engine
// packages; no network, no log.
package tokenizer

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// CLIP is a tokenizer. It never changes after Open and may be used by many goroutines at once.
type CLIP struct {
	bytePairs  bytePairs
	raw        matcher // added tokens that are found in the text as it was written
	normal     matcher // added tokens that are found in the normalized text
	start      int32
	end        int32
	pad        int32
	vocabSize  int
	inversions []inversion
}

// VocabSize is the largest id plus one: the rows a text encoder's embedding needs.
func (c *CLIP) VocabSize() int { return c.vocabSize }

// Start is the id before the tokens of every text.
func (c *CLIP) Start() int32 { return c.start }

// End is the id after the tokens of every text.
func (c *CLIP) End() int32 { return c.end }

// Pad is the id that fills up what Encode returns. Stable Diffusion 1 pads with the end token, 2
// with "!".
func (c *CLIP) Pad() int32 { return c.pad }

// InputError is an argument that cannot be tokenized.
type InputError struct {
	Field    string // "text" or "maxTokens"
	Expected string
	Got      string
}

// Error reads "text: expected UTF-8, got the byte 0xff at offset 3".
func (e *InputError) Error() string {
	return fmt.Sprintf("%s: expected %s, got %s", e.Field, e.Expected, e.Got)
}

// maxTextBytes bounds a text: places in it, also after normalization, are 32-bit numbers.
const maxTextBytes = 64 << 20

// frame is how many tokens of every text are not its own: start and end.
const frame = 2

// Encode returns exactly maxTokens ids: start, the tokens of text that fit, end, padding. Textual inversions of several
// vectors are spelled out. dropped counts the tokens that did not fit. The error is an InputError.
func (c *CLIP) Encode(text string, maxTokens int) (ids []int32, dropped int, err error) {
	if maxTokens < frame {
		return nil, 0, &InputError{Field: "maxTokens", Expected: fmt.Sprintf("at least %d, for start and end", frame), Got: fmt.Sprint(maxTokens)}
	}
	if text, err = c.spellOut(text); err != nil {
		return nil, 0, err
	}
	if ids, err = c.Tokenize(text); err != nil {
		return nil, 0, err
	}
	if dropped = len(ids) - maxTokens; dropped > 0 {
		ids = slices.Clone(ids[:maxTokens])
		ids[maxTokens-1] = c.end
		return ids, dropped, nil
	}
	for len(ids) < maxTokens {
		ids = append(ids, c.pad)
	}
	return ids, 0, nil
}

// Words returns the tokens of text alone, without start and end. Textual inversions of several vectors are spelled out. The error is
// an InputError.
func (c *CLIP) Words(text string) ([]int32, error) {
	text, err := c.spellOut(text)
	if err != nil {
		return nil, err
	}
	ids, err := c.Tokenize(text)
	if err != nil {
		return nil, err
	}
	return ids[1 : len(ids)-1], nil
}

// Tokenize returns start, every token of text and end. The error is an InputError.
func (c *CLIP) Tokenize(text string) ([]int32, error) {
	if err := checkText(text); err != nil {
		return nil, err
	}
	ids := []int32{c.start}
	m := merger{bytePairs: &c.bytePairs}
	c.raw.split(text, func(part string, id int32) {
		if part == "" {
			ids = append(ids, id)
			return
		}
		c.normal.split(normalize(part), func(part string, id int32) {
			if part == "" {
				ids = append(ids, id)
				return
			}
			splitWords(part, func(word string) { ids = m.appendWord(ids, word) })
		})
	})
	return append(ids, c.end), nil
}

func checkText(text string) error {
	if len(text) > maxTextBytes {
		return &InputError{Field: "text", Expected: fmt.Sprintf("at most %d bytes", maxTextBytes), Got: fmt.Sprint(len(text))}
	}
	if utf8.ValidString(text) {
		return nil
	}
	for i, r := range text {
		if r != utf8.RuneError {
			continue
		}
		if _, size := utf8.DecodeRuneInString(text[i:]); size == 1 {
			return &InputError{Field: "text", Expected: "UTF-8", Got: fmt.Sprintf("the byte %#02x at offset %d", text[i], i)}
		}
	}
	return nil
}
