package latent

import (
	"context"
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
)

// Run is that of so many prompts, with the network of a member.
func (t *Text) Run(net family.Network, member, prompts int) (family.Run, error) {
	tape, err := net.(*modeldir.TextEncoder).Tape(prompts, t.Tokens)
	return family.Run{Member: member, Tape: tape}, err
}

// States gives the states of each row of ids, [len(ids), tokens, width]: those of the prompts used last are kept beside the
// weights, so that only what is new is computed, in one batch. A row's bits do not depend on the batch it is computed in.
func (t *Text) States(ctx context.Context, s family.Session, member int, ids [][]int32) ([]float32, error) {
	store, n := s.Beside(member), t.Tokens*t.Config.HiddenSize
	states := make([]float32, len(ids)*n)
	keys := make([]string, len(ids))
	var missing []int // rows, each the first of its key
	for i, row := range ids {
		keys[i] = fmt.Sprint(row)
		if slices.Contains(keys[:i], keys[i]) {
			continue
		}
		there, err := store.Get(keys[i], states[i*n:][:n])
		if err != nil {
			return nil, err
		}
		if !there {
			missing = append(missing, i)
		}
	}
	if err := t.compute(ctx, s, member, ids, missing, states); err != nil {
		return nil, err
	}
	for _, i := range missing {
		if err := store.Put(keys[i], states[i*n:][:n]); err != nil {
			return nil, err
		}
	}
	for i, key := range keys {
		if first := slices.Index(keys, key); first < i {
			copy(states[i*n:][:n], states[first*n:])
		}
	}
	return states, nil
}

// compute runs the network on some rows of ids and fills in their states.
func (t *Text) compute(ctx context.Context, s family.Session, member int, ids [][]int32, rows []int, states []float32) error {
	if len(rows) == 0 {
		return nil
	}
	r, err := t.Run(s.Network(member), member, len(rows))
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
		return s.NotFinite(member, "states")
	}
	for at, i := range rows {
		copy(states[i*n:][:n], output[at*n:])
	}
	return nil
}
