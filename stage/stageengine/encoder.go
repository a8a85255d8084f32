package stageengine

import (
	"context"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/triptych-serving/triptych/engine/device"
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

// rememberedPrompts is how many prompts' states a resident encoder keeps: the usual negative prompt, and the
// prompts that are tried with one seed after another. Of Stable Diffusion 1.5 they are 1.9 MB.
const rememberedPrompts = 8

// Encoder is the first stage: prompts to the states of CLIP. The states of the prompts used last are kept
// beside the weights, and count as part of them, so that only what is new is computed.
type Encoder struct {
	*shelf[*modeldir.TextEncoder]
}

// NewEncoder declares the text encoder of every model of the library; none is loaded.
func NewEncoder(o Options) *Encoder {
	return &Encoder{newShelf(o, stage.KindEncoder, (*modeldir.Dir).TextEncoder,
		func(dir *modeldir.Dir, net *modeldir.TextEncoder, b *book[*modeldir.TextEncoder]) error {
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
			c := &b.component
			c.MaxTokens, c.ContextDim = dir.Tokens, dir.Text.HiddenSize
			if b.store, err = newStore(o.Device, net.Manifest(), rememberedPrompts, c.MaxTokens, c.ContextDim); err != nil {
				return err
			}
			c.WeightsBytes += b.store.bytes
			b.tokenizer = t
			return nil
		})}
}

// Plan implements stage.Resident.
func (e *Encoder) Plan(_ context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	tape, err := e.planned(req)
	if err != nil {
		return stage.Footprint{}, err
	}
	return e.footprint(req.Model, tape, req.LimitBytes)
}

// planned is the tape of a request.
func (e *Encoder) planned(req stage.PlanRequest) (*device.Tape, error) {
	b, err := e.find(req.Model)
	if err != nil {
		return nil, err
	}
	if req.Batch < 1 || req.Batch > maxPrompts {
		return nil, stage.Invalid(stage.InvalidField, "batch", req.Batch, fmt.Sprintf("1 to %d prompts", maxPrompts))
	}
	tape, err := b.network().Tape(req.Batch, b.component.MaxTokens)
	if err != nil {
		return nil, e.fault(err)
	}
	return tape, nil
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
	ids := make([][]int32, batch)
	out := stage.Conditioning{DroppedTokens: make([]int, batch)}
	for i, prompt := range req.Prompts {
		if !utf8.ValidString(prompt) || len(prompt) > maxPromptBytes {
			return stage.Conditioning{}, stage.Invalid(stage.InvalidField, fmt.Sprintf("prompts[%d]", i), prompt, fmt.Sprintf("at most %d bytes of UTF-8", maxPromptBytes))
		}
		if ids[i], out.DroppedTokens[i], err = b.tokenizer.Encode(prompt, tokens); err != nil {
			return stage.Conditioning{}, e.fault(err)
		}
	}
	states := make([]float32, batch*tokens*width)
	if err := e.states(ctx, b, ids, states); err != nil {
		return stage.Conditioning{}, err
	}
	out.States = tensor.FromF32(states, batch, tokens, width)
	return out, nil
}

// states fills in the states of each row of ids, [len(ids), tokens, width]: those remembered, and the others
// in one batch. A row's bits do not depend on the batch it is computed in.
func (e *Encoder) states(ctx context.Context, b *book[*modeldir.TextEncoder], ids [][]int32, states []float32) error {
	n := len(states) / len(ids)
	keys := make([]string, len(ids))
	var missing []int // rows, each the first of its key
	for i, row := range ids {
		keys[i] = fmt.Sprint(row)
		if slices.Contains(keys[:i], keys[i]) {
			continue
		}
		there, err := b.store.get(keys[i], states[i*n:][:n])
		if err != nil {
			return e.fault(err)
		}
		if !there {
			missing = append(missing, i)
		}
	}
	if err := e.compute(ctx, b, ids, missing, states); err != nil {
		return err
	}
	for _, i := range missing {
		if err := b.store.put(keys[i], states[i*n:][:n]); err != nil {
			return e.fault(err)
		}
	}
	for i, key := range keys {
		if first := slices.Index(keys, key); first < i {
			copy(states[i*n:][:n], states[first*n:])
		}
	}
	return nil
}

// compute runs the network on some rows of ids and fills in their states.
func (e *Encoder) compute(ctx context.Context, b *book[*modeldir.TextEncoder], ids [][]int32, rows []int, states []float32) error {
	if len(rows) == 0 {
		return nil
	}
	tape, err := b.network().Tape(len(rows), b.component.MaxTokens)
	if err != nil {
		return e.fault(err)
	}
	run, err := e.Device.NewRun(tape, b.weights, device.RunOptions{})
	if err != nil {
		return e.runError(err, b, 0)
	}
	defer run.Free()
	n := len(states) / len(ids)
	var input []int32
	for _, i := range rows {
		input = append(input, ids[i]...)
	}
	output := make([]float32, len(rows)*n)
	if err := first(
		func() error { return run.WriteIDs(modeldir.InputIDs, input) },
		func() error { return run.Execute(ctx) },
		func() error { return run.Read(modeldir.OutputStates, output) },
	); err != nil {
		return e.runError(err, b, run.Bytes())
	}
	if !finite(output) {
		return e.notFinite(b, "states")
	}
	for at, i := range rows {
		copy(states[i*n:][:n], output[at*n:])
	}
	return nil
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
