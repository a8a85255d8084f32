package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The names of CLIP's two special tokens, which the reference also writes into its expression.
const (
	startName = "<|startoftext|>"
	endName   = "<|endoftext|>"
)

// splitWords calls word for each word of a normalized text, as the reference's expression does:
//
//	<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+
//
// It finds one of the first two where the special token itself was not recognized, as in
// "<|EndOfText|>" before lower case, and then splits it in three.
func splitWords(s string, word func(string)) {
	for s != "" {
		if special := specialName(s); special != "" {
			word("<|")
			word(special[2 : len(special)-2])
			word("|>")
			s = s[len(special):]
			continue
		}
		n := wordLength(s)
		if n == 0 { // white space
			_, n = utf8.DecodeRuneInString(s)
		} else {
			word(s[:n])
		}
		s = s[n:]
	}
}

func specialName(s string) string {
	for _, name := range [...]string{startName, endName} {
		if strings.HasPrefix(s, name) {
			return name
		}
	}
	return ""
}

// wordLength is the length of the word s starts with, 0 at white space.
func wordLength(s string) int {
	for _, c := range [...]string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"} {
		if strings.HasPrefix(s, c) {
			return len(c)
		}
	}
	kind := kindOf(s)
	switch kind {
	case space:
		return 0
	case number:
		_, n := utf8.DecodeRuneInString(s)
		return n
	}
	n := 0
	for n < len(s) && kindOf(s[n:]) == kind {
		_, size := utf8.DecodeRuneInString(s[n:])
		n += size
	}
	return n
}

type kind uint8

const (
	other kind = iota
	space
	letter
	number
)

// kindOf is the kind of the character s starts with.
func kindOf(s string) kind {
	r, _ := utf8.DecodeRuneInString(s)
	switch {
	case isLetter(r):
		return letter
	case isNumber(r):
		return number
	case unicode.IsSpace(r):
		return space
	}
	return other
}
