package tokenizer

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// normalize is the reference's normalizer: NFC, every run of white space one space, lower case.
// Lower case is per character: no final sigma. A second NFC does not follow.
func normalize(s string) string {
	s = nfc(s)
	var b strings.Builder
	b.Grow(len(s))
	space := false
	for _, r := range s {
		if unicode.IsSpace(r) {
			if !space {
				b.WriteByte(' ')
			}
			space = true
			continue
		}
		space = false
		if r == 'İ' {
			b.WriteString("i\u0307") // the only character whose lower case is two
			continue
		}
		b.WriteRune(toLower(r))
	}
	return b.String()
}

// nfc composes s. It is not norm.NFC.String, which breaks a run of more than 30 combining marks with
// U+034F (its stream-safe format) where the reference does not.
func nfc(s string) string {
	if norm.NFC.IsNormalString(s) {
		return s
	}
	return string(compose(decompose(s)))
}

type char struct {
	r     rune
	class uint8 // canonical combining class
}

// decompose is NFD: every character taken apart, marks in the order of their classes.
func decompose(s string) []char {
	chars := make([]char, 0, len(s))
	var buf [64]byte
	for _, r := range s {
		if r == newComposite {
			chars = append(chars, char{r: r})
			continue
		}
		for parts := norm.NFD.AppendString(buf[:0], string(r)); len(parts) > 0; {
			part, size := utf8.DecodeRune(parts)
			class := norm.NFD.Properties(parts).CCC()
			if unicode.Is(newMarks, part) {
				class = 0
			}
			chars = append(chars, char{part, class})
			parts = parts[size:]
		}
	}
	for i := 0; i < len(chars); {
		j := i
		for j < len(chars) && chars[j].class != 0 {
			j++
		}
		slices.SortStableFunc(chars[i:j], func(a, b char) int { return int(a.class) - int(b.class) })
		i = max(j, i+1)
	}
	return chars
}

// compose joins each starter with the later characters that nothing blocks from it.
func compose(chars []char) []rune {
	out := make([]rune, 0, len(chars))
	starter, last := -1, -1 // where the starter is, and the class of what stands after it
	for _, c := range chars {
		if starter >= 0 && last < int(c.class) {
			if whole, ok := composePair(out[starter], c.r); ok {
				out[starter] = whole
				continue
			}
		}
		if c.class == 0 {
			starter, last = len(out), -1
		} else {
			last = int(c.class)
		}
		out = append(out, c.r)
	}
	return out
}

func composePair(a, b rune) (rune, bool) {
	var buf [16]byte
	whole := norm.NFC.AppendString(buf[:0], string([]rune{a, b}))
	r, size := utf8.DecodeRune(whole)
	return r, size == len(whole) && r != newComposite
}
