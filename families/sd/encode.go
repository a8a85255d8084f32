package sd

import (
	"context"
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

func (m *model) encodeRuns(nets []family.Network, o stage.Options) ([]family.Run, error) {
	return one(m.textRun(nets[0], family.Batch(o)))
}

func (m *model) textRun(net family.Network, prompts int) (family.Run, error) {
	tape, err := net.(*modeldir.TextEncoder).Tape(prompts, m.Tokens)
	return family.Run{Tape: tape}, err
}

// encode gives the states of CLIP, the negative prompt's first. The states of the prompts used last are kept beside the
// weights, so that only what is new is computed.
func (m *model) encode(ctx context.Context, s family.Session, req stage.WorkRequest, _ stage.Observer) (stage.Result, error) {
	tokens, err := m.tokenizer()
	if err != nil {
		return stage.Result{}, err
	}
	names := []string{optionNegative, optionPrompt}[2-family.Batch(req.Options):]
	ids := make([][]int32, len(names))
	var out stage.Result
	for i, name := range names {
		var dropped int
		if ids[i], dropped, err = tokens.Encode(req.Options[name].Text, m.Tokens); err != nil {
			return out, err
		}
		if dropped > 0 {
			out.Warnings = append(out.Warnings, family.Truncated(name, dropped, m.Tokens))
		}
	}
	states := make([]float32, len(ids)*m.Tokens*m.Text.HiddenSize)
	if err := m.states(ctx, s, ids, states); err != nil {
		return out, err
	}
	out.Values = stage.Values{family.Tensor(valueStates, states, len(ids), m.Tokens, m.Text.HiddenSize)}
	return out, nil
}

// states fills in the states of each row of ids, [len(ids), tokens, width]: those remembered, and the others
// in one batch. A row's bits do not depend on the batch it is computed in.
func (m *model) states(ctx context.Context, s family.Session, ids [][]int32, states []float32) error {
	store, n := s.Beside(0), len(states)/len(ids)
	keys := make([]string, len(ids))
	var missing []int // rows, each the first of its key
	for i, row := range ids {
		keys[i] = fmt.Sprint(row)
		if slices.Contains(keys[:i], keys[i]) {
			continue
		}
		there, err := store.Get(keys[i], states[i*n:][:n])
		if err != nil {
			return err
		}
		if !there {
			missing = append(missing, i)
		}
	}
	if err := m.compute(ctx, s, ids, missing, states); err != nil {
		return err
	}
	for _, i := range missing {
		if err := store.Put(keys[i], states[i*n:][:n]); err != nil {
			return err
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
func (m *model) compute(ctx context.Context, s family.Session, ids [][]int32, rows []int, states []float32) error {
	if len(rows) == 0 {
		return nil
	}
	r, err := m.textRun(s.Network(0), len(rows))
	if err != nil {
		return err
	}
	run, err := s.Start(r)
	if err != nil {
		return err
	}
	defer run.Free()
	n := len(states) / len(ids)
	var input []int32
	for _, i := range rows {
		input = append(input, ids[i]...)
	}
	output := make([]float32, len(rows)*n)
	if err := family.First(
		func() error { return run.WriteIDs(modeldir.InputIDs, input) },
		func() error { return run.Execute(ctx) },
		func() error { return run.Read(modeldir.OutputStates, output) },
	); err != nil {
		return s.Failed(r, run, err)
	}
	if !family.Finite(output) {
		return s.NotFinite(0, "states")
	}
	for at, i := range rows {
		copy(states[i*n:][:n], output[at*n:])
	}
	return nil
}
