package stageengine

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/tokenizer"
	"github.com/triptych-serving/triptych/stage"
)

// The bounds of an encoding.
const (
	maxPrompts     = 16
	maxPromptBytes = 8192
)

// Encoder is the first stage: prompts to the states of CLIP.
type Encoder struct {
	*shelf[*modeldir.TextEncoder]
	tokenizers map[string]*tokenizer.CLIP
}

// NewEncoder declares the text encoder of every model of the library; none is loaded.
func NewEncoder(o Options) *Encoder {
	e := &Encoder{tokenizers: map[string]*tokenizer.CLIP{}}
	e.shelf = newShelf(o, stage.KindEncoder, (*modeldir.Dir).TextEncoder,
		func(dir *modeldir.Dir, _ *modeldir.TextEncoder, c *stage.Component) error {
			t, err := tokenizer.Open(dir.Tokenizer())
			if err != nil {
				return err
			}
			if t.VocabSize() > dir.Text.VocabSize {
				return &modeldir.Error{
					Path: dir.Tokenizer(), Expected: fmt.Sprintf("ids below vocab_size %d of the text encoder", dir.Text.VocabSize),
					Got: fmt.Sprintf("ids up to %d", t.VocabSize()-1),
				}
			}
			e.tokenizers[c.Model] = t
			c.MaxTokens, c.ContextDim = dir.Text.MaxPositions, dir.Text.HiddenSize
			return nil
		})
	return e
}

// Plan implements stage.Resident.
func (e *Encoder) Plan(_ context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	b, err := e.find(req.Model)
	if err != nil {
		return stage.Footprint{}, err
	}
	if req.Batch < 1 || req.Batch > maxPrompts {
		return stage.Footprint{}, stage.Invalid(stage.InvalidField, "batch", req.Batch, fmt.Sprintf("1 to %d prompts", maxPrompts))
	}
	tape, err := b.net.Tape(req.Batch, b.component.MaxTokens)
	if err != nil {
		return stage.Footprint{}, e.fault(err)
	}
	return e.footprint(b, tape)
}

// Encode implements stage.Encoder.
func (e *Encoder) Encode(ctx context.Context, req stage.EncodeRequest) (stage.Conditioning, error) {
	if n := len(req.Prompts); n < 1 || n > maxPrompts {
		return stage.Conditioning{}, stage.Invalid(stage.InvalidField, "prompts", n, fmt.Sprintf("1 to %d prompts", maxPrompts))
	}
	b, done, err := e.use(ctx, req.Model)
	if err != nil {
		return stage.Conditioning{}, err
	}
	defer done()

	batch, tokens, width := len(req.Prompts), b.component.MaxTokens, b.component.ContextDim
	ids := make([]int32, 0, batch*tokens)
	out := stage.Conditioning{DroppedTokens: make([]int, batch)}
	for i, prompt := range req.Prompts {
		if !utf8.ValidString(prompt) || len(prompt) > maxPromptBytes {
			return stage.Conditioning{}, stage.Invalid(stage.InvalidField, fmt.Sprintf("prompts[%d]", i), prompt, fmt.Sprintf("at most %d bytes of UTF-8", maxPromptBytes))
		}
		row, dropped, err := e.tokenizers[req.Model].Encode(prompt, tokens)
		if err != nil {
			return stage.Conditioning{}, e.fault(err)
		}
		ids, out.DroppedTokens[i] = append(ids, row...), dropped
	}

	tape, err := b.net.Tape(batch, tokens)
	if err != nil {
		return stage.Conditioning{}, e.fault(err)
	}
	run, err := e.Device.NewRun(tape, b.weights)
	if err != nil {
		return stage.Conditioning{}, e.runError(err, b, 0)
	}
	defer run.Free()
	states := make([]float32, batch*tokens*width)
	if err := first(
		func() error { return run.WriteIDs(modeldir.InputIDs, ids) },
		func() error { return run.Execute(ctx) },
		func() error { return run.Read(modeldir.OutputStates, states) },
	); err != nil {
		return stage.Conditioning{}, e.runError(err, b, run.Bytes())
	}
	out.States = tensor.FromF32(states, batch, tokens, width)
	return out, nil
}

// first runs steps until one fails.
func first(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
