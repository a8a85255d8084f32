package tokenizer

import (
	"fmt"
	"slices"
	"strings"
)

// inversion is a textual inversion of several vectors (Gal et al. 2022, arXiv 2208.01618): added tokens "<cat>", "<cat>_1",
// "<cat>_2" and so on, which a text names by the first.
type inversion struct {
	text string
	id   int32
	all  string // of its tokens, with a space between two
}

func inversionsOf(tokens []added) (out []inversion) {
	texts := map[string]bool{}
	for _, t := range tokens {
		texts[t.text] = true
	}
	for _, t := range tokens {
		all := []string{t.text}
		for {
			next := fmt.Sprintf("%s_%d", t.text, len(all))
			if !texts[next] {
				break
			}
			all = append(all, next)
		}
		if len(all) > 1 {
			out = append(out, inversion{t.text, t.id, strings.Join(all, " ")})
		}
	}
	return out
}

// spellOut writes the tokens of each inversion in text in place of its name, as the pipelines of diffusers do.
func (c *CLIP) spellOut(text string) (string, error) {
	if len(c.inversions) == 0 {
		return text, nil
	}
	ids, err := c.Tokenize(text)
	if err != nil {
		return "", err
	}
	for _, v := range c.inversions {
		if !slices.Contains(ids[1:len(ids)-1], v.id) {
			continue
		}
		if n := len(text) + strings.Count(text, v.text)*(len(v.all)-len(v.text)); n > maxTextBytes {
			return "", &InputError{Field: "text", Expected: fmt.Sprintf("at most %d bytes with textual inversions spelled out", maxTextBytes), Got: fmt.Sprint(n)}
		}
		text = strings.ReplaceAll(text, v.text, v.all)
	}
	return text, nil
}
