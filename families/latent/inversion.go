package latent

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/triptych-serving/triptych/engine/model/inversion"
	"github.com/triptych-serving/triptych/engine/prompt"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// words are textual inversions, by the words that prompts name them by.
type words map[string]inversion.Named

// wordsFor are those that a session has for text encoders.
func wordsFor(s family.Session, loras []LoRAs, encoders []*Text) words {
	all := s.Embeddings()
	for _, of := range loras {
		for _, l := range of.adapted {
			all = append(all, l.Embeddings()...)
		}
	}
	return inversion.Words(all, func(in *inversion.Inversion) error {
		refuse := func(expected, got string) error {
			return &inversion.Error{File: in.File, Expected: expected, Got: got}
		}
		for _, t := range encoders {
			if len(in.Encoders) != t.Vectors {
				return refuse(fmt.Sprintf("vectors for %s, as the model has", stage.Count(t.Vectors, "text encoder")), fmt.Sprintf("those of %d", len(in.Encoders)))
			}
			switch v := in.Encoders[t.Place]; {
			case v.Width != t.Config.HiddenSize:
				return refuse(fmt.Sprintf("vectors of %d numbers, as the text encoder has", t.Config.HiddenSize), fmt.Sprint(v.Width))
			case v.N > t.Tokens-2:
				return refuse(fmt.Sprintf("at most %d vectors, which a chunk has room for", t.Tokens-2), fmt.Sprint(v.N))
			}
		}
		return nil
	})
}

// embeddings are the words as a tokenizer reads them. Those of files that cannot be used have no vectors.
func (w words) embeddings(t prompt.Tokenizer) (out []prompt.Embedding) {
	for _, word := range slices.Sorted(maps.Keys(w)) {
		in := w[word]
		tokens, err := t.Words(word)
		if err != nil {
			continue // no text, as names of files may be
		}
		e := prompt.Embedding{Name: word, Tokens: tokens}
		if in.Refused == nil {
			e.Vectors = in.Encoders[0].N
		}
		if len(e.Tokens) > 0 {
			out = append(out, e)
		}
	}
	return out
}

// check refuses the first word of chunks whose file cannot be used.
func (w words) check(option string, chunks []prompt.Chunk) error {
	for _, c := range chunks {
		for _, e := range c.Embeddings {
			var wrong *inversion.Error
			if in := w[e.Name]; errors.As(in.Refused, &wrong) {
				accepted := fmt.Sprintf("an embedding with %s, got %s", wrong.Expected, wrong.Got)
				if wrong.Tensor != "" {
					accepted += fmt.Sprintf(" in tensor %.80q", wrong.Tensor)
				}
				return stage.Invalid(stage.InvalidField, option, fmt.Sprintf("%s (%s)", e.Name, wrong.File), accepted)
			}
		}
	}
	return nil
}

// place has the vectors of a chunk's embeddings stand behind a text encoder's vocabulary.
func (w words) place(c *chunk, t *Text) {
	for _, e := range c.Embeddings {
		in := w[e.Name]
		v := in.Encoders[t.Place]
		for k := range v.N {
			c.ids[e.At+k] = int32(t.Config.VocabSize + len(c.extra)/v.Width + k)
		}
		c.extra = append(c.extra, v.Values...)
		c.key += fmt.Sprintf(" %d %x", e.At, in.Digest)
	}
}
