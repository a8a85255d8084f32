package tokenizer

import (
	"slices"
	"strings"
)

// added is a token that is found as a whole, before the text is split into words.
type added struct {
	text       string
	id         int32
	normalized bool // found in the normalized text, in normalized form
}

// matcher finds added tokens in a text, by their first byte, the longest first.
type matcher [256][]added

func newMatcher(tokens []added) matcher {
	var m matcher
	for _, t := range tokens {
		m[t.text[0]] = append(m[t.text[0]], t)
	}
	for _, list := range m {
		slices.SortStableFunc(list, func(a, b added) int { return len(b.text) - len(a.text) })
	}
	return m
}

// split calls yield with each stretch of text between tokens, which is not empty, and with "" and
// the id of each token, in the order of the text.
func (m *matcher) split(text string, yield func(part string, id int32)) {
	from := 0
	for i := 0; i < len(text); {
		t, ok := m.at(text[i:])
		if !ok {
			i++
			continue
		}
		if from < i {
			yield(text[from:i], 0)
		}
		yield("", t.id)
		i += len(t.text)
		from = i
	}
	if from < len(text) {
		yield(text[from:], 0)
	}
}

func (m *matcher) at(s string) (added, bool) {
	for _, t := range m[s[0]] {
		if strings.HasPrefix(s, t.text) {
			return t, true
		}
	}
	return added{}, false
}

// matchersOf sorts tokens into those found in the written and those found in the normalized text.
func matchersOf(tokens []added) (raw, normal matcher) {
	var a, b []added
	for _, t := range tokens {
		if !t.normalized {
			a = append(a, t)
		} else if t.text = normalize(t.text); t.text != "" {
			b = append(b, t)
		}
	}
	return newMatcher(a), newMatcher(b)
}
