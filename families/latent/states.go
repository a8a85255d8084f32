package latent

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// Encoded are the states [prompts, Tokens, HiddenSize] and pooled states [prompts, Projection] of prompts.
type Encoded struct{ States, Pooled []float32 }

// Runs are those of prompts, with the network of a member: one for all that skip as many layers.
func (t *Text) Runs(net family.Network, member int, prompts []Prompt) (runs []family.Run, err error) {
	alike := map[int]int{}
	for _, p := range prompts {
		alike[p.Skip]++
	}
	for _, skip := range slices.Sorted(maps.Keys(alike)) {
		r, err := t.run(net, member, alike[skip], skip)
		if err != nil {
			return nil, err
		}
		runs = append(runs, r)
	}
	return runs, nil
}

func (t *Text) run(net family.Network, member, prompts, skip int) (family.Run, error) {
	tape, err := net.(*modeldir.TextEncoder).TapeTo(prompts, t.Tokens, t.depth(skip))
	return family.Run{Member: member, Tape: tape}, err
}

// row is how many values are remembered of a prompt: its states, and the pooled one.
func (t *Text) row() int { return t.Tokens*t.Config.HiddenSize + t.Projection }

// Encode gives the states of prompts: those of the prompts used last are kept beside the weights, so that only what is new is
// computed, in one batch. A row's bits do not depend on the batch it is computed in. Warnings tell what was cut off.
func (t *Text) Encode(ctx context.Context, s family.Session, member int, prompts []Prompt) (e Encoded, warnings []stage.Warning, err error) {
	ids, warnings, err := t.IDs(prompts)
	if err != nil {
		return e, nil, err
	}
	store, n := s.Beside(member), t.row()
	rows := make([]float32, len(ids)*n)
	keys := make([]string, len(ids))
	missing := map[int][]int{} // rows, each the first of its key, by the layers they skip
	for i, row := range ids {
		skip := prompts[i].Skip
		keys[i] = fmt.Sprint(t.depth(skip), row)
		if slices.Contains(keys[:i], keys[i]) {
			continue
		}
		there, err := store.Get(keys[i], rows[i*n:][:n])
		if err != nil {
			return e, nil, err
		}
		if !there {
			missing[skip] = append(missing[skip], i)
		}
	}
	for _, skip := range slices.Sorted(maps.Keys(missing)) {
		if err := t.compute(ctx, s, member, ids, missing[skip], rows, skip); err != nil {
			return e, nil, err
		}
		for _, i := range missing[skip] {
			if err := store.Put(keys[i], rows[i*n:][:n]); err != nil {
				return e, nil, err
			}
		}
	}
	for _, key := range keys {
		row := rows[slices.Index(keys, key)*n:][:n]
		e.States, e.Pooled = append(e.States, row[:n-t.Projection]...), append(e.Pooled, row[n-t.Projection:]...)
	}
	return e, warnings, nil
}

// compute runs the network on some of the ids and fills in their rows.
func (t *Text) compute(ctx context.Context, s family.Session, member int, ids [][]int32, missing []int, rows []float32, skip int) error {
	r, err := t.run(s.Network(member), member, len(missing), skip)
	if err != nil {
		return err
	}
	run, err := s.Start(r)
	if err != nil {
		return err
	}
	defer run.Free()
	n := t.row() - t.Projection
	var input []int32
	for _, i := range missing {
		input = append(input, ids[i]...)
	}
	states, pooled := make([]float32, len(missing)*n), make([]float32, len(missing)*t.Tokens*t.Projection)
	if err := family.First(
		func() error { return run.WriteIDs(modeldir.InputIDs, input) },
		func() error { return run.Execute(ctx) },
		func() error { return run.Read(modeldir.OutputStates, states) },
		func() error {
			if t.Projection == 0 {
				return nil
			}
			return run.Read(modeldir.OutputPooled, pooled)
		},
	); err != nil {
		return s.Failed(r, run, err)
	}
	if !family.Finite(states) || !family.Finite(pooled) {
		return s.NotFinite(member, "states")
	}
	for at, i := range missing {
		row := rows[i*t.row():][:t.row()]
		copy(row, states[at*n:][:n])
		place := at*t.Tokens + t.Config.Pooled(ids[i])
		copy(row[n:], pooled[place*t.Projection:])
	}
	return nil
}
