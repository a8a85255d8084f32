package latent

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/triptych-serving/triptych/engine/prompt"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// The options of how prompts are read.
const (
	OptionSyntax      = "prompt_syntax"
	OptionRestoreMean = "restore_mean"
)

// The syntaxes of prompts.
const (
	syntaxA1111   = "a1111"   // see engine/prompt
	syntaxWeights = "weights" // the same, but that texts do not change by steps
	syntaxPlain   = "plain"   // as diffusers' pipelines have it: every character is text, and what the encoder does not take at once is cut off
)

// PromptOptions are the specs of how prompts are read.
func PromptOptions() []stage.OptionSpec {
	return []stage.OptionSpec{
		{Name: OptionSyntax, Type: stage.Text, Choices: []string{syntaxA1111, syntaxWeights, syntaxPlain}, Default: stage.TextOption(syntaxA1111)},
		{Name: OptionRestoreMean, Type: stage.Bool, Default: stage.BoolOption(true)},
	}
}

// Reads are the options that an encode turn reads, of prompts by some names.
func Reads(prompts ...string) []string {
	return append(prompts, family.Guidance, OptionClipSkip, OptionNegativeClipSkip, OptionSteps, OptionSyntax, OptionRestoreMean, OptionLoRAs)
}

// maxChunks bounds the chunks of all texts of a request, of which alternatives may have many.
const maxChunks = 128

// Reading is texts as a text encoder takes them: of each the same number of chunks, one text after another.
type Reading struct {
	chunks  []chunk
	texts   int
	atOnce  map[int]int // how many chunks are computed at once, by the layers they skip
	restore bool        // the mean of states that weights change
}

// chunk is one as a text encoder takes it.
type chunk struct {
	prompt.Chunk
	skip  int       // layers
	ids   []int32   // with those of vectors, which are behind the vocabulary
	extra []float32 // the vectors
	key   string    // of vectors and places
}

// Read reads the texts of some encoders, which have LoRAs, in the syntax of a request: of each text every one has as many chunks. Warnings tell what was cut off. The error
// is a *stage.Error, or the tokenizer's.
func (c Conditioning) Read(o stage.Options, s family.Session, loras []LoRAs, encoders ...*Text) (out []Reading, warnings []stage.Warning, err error) {
	rows := make([][][]prompt.Chunk, len(encoders)) // by encoder and text
	var known words
	if o[OptionSyntax].Text != syntaxPlain {
		known = wordsFor(s, loras, encoders)
	}
	most := 0
	for i, t := range encoders {
		for _, row := range c.Rows {
			chunks, dropped, err := t.split(o[OptionSyntax].Text, row[i], known)
			if err != nil {
				return nil, nil, err
			}
			if dropped > 0 {
				if w := family.Truncated(row[i].Option, dropped, t.Tokens); !slices.Contains(warnings, w) {
					warnings = append(warnings, w)
				}
			}
			rows[i] = append(rows[i], chunks)
			most = max(most, len(chunks))
		}
	}
	if n := most * len(c.Rows); n > maxChunks {
		return nil, nil, stage.Invalid(stage.InvalidField, OptionPrompt, fmt.Sprintf("%d chunks", n), fmt.Sprintf("at most %d chunks of all texts, as many of each as the longest one has", maxChunks))
	}
	for i, t := range encoders {
		r := Reading{texts: len(c.Rows), atOnce: atOnce(textsOf(c.batch, i)), restore: o[OptionRestoreMean].Bool}
		empty, _, err := t.split(syntaxA1111, Prompt{}, nil)
		if err != nil {
			return nil, nil, err
		}
		for j, row := range rows[i] {
			for k := range most {
				fill := empty
				if k < len(row) {
					fill = row[k:]
				}
				one := chunk{Chunk: fill[0], skip: c.Rows[j][i].Skip, ids: slices.Clone(fill[0].IDs)}
				known.place(&one, t)
				r.chunks = append(r.chunks, one)
			}
		}
		out = append(out, r)
	}
	return out, warnings, nil
}

// split makes chunks of a text; dropped is how many tokens were cut off.
func (t *Text) split(syntax string, p Prompt, known words) (chunks []prompt.Chunk, dropped int, err error) {
	tokens, err := t.tokens()
	if err != nil {
		return nil, 0, err
	}
	if syntax == syntaxPlain {
		ids, dropped, err := tokens.Encode(p.Text, t.Tokens)
		return []prompt.Chunk{{IDs: ids}}, dropped, err
	}
	parts, err := prompt.Parse(p.Text)
	if err != nil {
		return nil, 0, refused(p.Option, err)
	}
	if chunks, err = prompt.Split(parts, tokens, known.embeddings(tokens), t.Tokens); err != nil {
		return nil, 0, refused(p.Option, err)
	}
	return chunks, 0, known.check(p.Option, chunks)
}

// refused is the error of a prompt that cannot be used.
func refused(option string, err error) error {
	var wrong *prompt.Error
	if errors.As(err, &wrong) {
		return stage.Invalid(stage.InvalidField, option, wrong.Got, wrong.Expected)
	}
	return err
}

// together gives some chunks, which skip as many layers, as they are computed: one by one where there are vectors.
func (r Reading) together(some []int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		for len(some) > 0 {
			n := 0
			for n < min(len(some), r.atOnce[r.chunks[some[0]].skip]) && len(r.chunks[some[n]].extra) == 0 {
				n++
			}
			n = max(n, 1)
			if !yield(some[:n]) {
				return
			}
			some = some[n:]
		}
	}
}

// Chunks is how many each text has.
func (r Reading) Chunks() int { return len(r.chunks) / r.texts }

// weigh multiplies the states of chunks by the weights of their places. Where the mean is restored, each chunk is then multiplied by
// its mean before over that behind.
func (r Reading) weigh(states []float32) {
	n := len(states) / len(r.chunks)
	for i, c := range r.chunks {
		if !slices.ContainsFunc(c.Weights, func(w float64) bool { return w != 1 }) {
			continue
		}
		of := states[i*n:][:n]
		before := sum(of)
		width := n / len(c.Weights)
		for at, w := range c.Weights {
			scale(of[at*width:][:width], float32(w))
		}
		if ratio := before / sum(of); r.restore && !math.IsNaN(ratio) && !math.IsInf(ratio, 0) {
			scale(of, float32(ratio))
		}
	}
}

func sum(v []float32) (out float64) {
	for _, x := range v {
		out += float64(x)
	}
	return out
}

func scale(v []float32, by float32) {
	for i := range v {
		v[i] *= by
	}
}
