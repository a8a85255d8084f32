package latent

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
)

// Encoded are the states [texts, chunks * Tokens, HiddenSize] and pooled states [texts, Projection] of texts.
type Encoded struct{ States, Pooled []float32 }

// Runs are those of prompts, with the network of a member: one for all that skip as many layers, and one for one of them, which may
// have textual inversions. LoRAs are those of the network.
func (t *Text) Runs(net family.Network, member int, loras LoRAs, prompts []Prompt) (runs []family.Run, err error) {
	alike := atOnce(prompts)
	for _, skip := range slices.Sorted(maps.Keys(alike)) {
		for _, n := range slices.Compact([]int{alike[skip], 1}) {
			r, err := t.run(net, member, loras, n, skip)
			if err != nil {
				return nil, err
			}
			runs = append(runs, r)
		}
	}
	return runs, nil
}

// atOnce is how many texts are computed at once, by the layers they skip.
func atOnce(prompts []Prompt) map[int]int {
	alike := map[int]int{}
	for _, p := range prompts {
		alike[p.Skip]++
	}
	return alike
}

// run is that of so many prompts. One alone has room for vectors of textual inversions.
func (t *Text) run(net family.Network, member int, loras LoRAs, prompts, skip int) (family.Run, error) {
	vectors := 0
	if prompts == 1 {
		vectors = t.vectors()
	}
	tape, err := net.(*modeldir.TextEncoder).TapeWith(prompts, t.Tokens, t.depth(skip), vectors, loras.adapted...)
	return family.Run{Member: member, With: loras.members, Tape: tape}, err
}

// vectors is how many of textual inversions a chunk has room for.
func (t *Text) vectors() int { return t.Tokens - 2 }

// row is how many values are remembered of a prompt: its states, and the pooled one.
func (t *Text) row() int { return t.Tokens*t.Config.HiddenSize + t.Projection }

// Encode gives the states of texts, weighted. Those of the chunks used last are kept beside the weights, so that only what is new is
// computed, in batches that Runs tells. A row's bits do not depend on the batch it is computed in.
func (t *Text) Encode(ctx context.Context, s family.Session, member int, loras LoRAs, r Reading) (e Encoded, err error) {
	store, n := s.Beside(member), t.row()
	rows := make([]float32, len(r.chunks)*n)
	keys := make([]string, len(r.chunks))
	missing := map[int][]int{} // rows, each the first of its key, by the layers they skip
	for i, c := range r.chunks {
		keys[i] = fmt.Sprint(t.depth(c.skip), c.IDs) + c.key + loras.Key()
		if slices.Contains(keys[:i], keys[i]) {
			continue
		}
		there, err := store.Get(keys[i], rows[i*n:][:n])
		if err != nil {
			return e, err
		}
		if !there {
			missing[c.skip] = append(missing[c.skip], i)
		}
	}
	for _, skip := range slices.Sorted(maps.Keys(missing)) {
		for some := range r.together(missing[skip]) {
			if err := t.compute(ctx, s, member, loras, r.chunks, some, rows); err != nil {
				return e, err
			}
		}
		for _, i := range missing[skip] {
			if err := store.Put(keys[i], rows[i*n:][:n]); err != nil {
				return e, err
			}
		}
	}
	for i, key := range keys {
		row := rows[slices.Index(keys, key)*n:][:n]
		e.States = append(e.States, row[:n-t.Projection]...)
		if i%r.Chunks() == 0 { // the first of its text
			e.Pooled = append(e.Pooled, row[n-t.Projection:]...)
		}
	}
	r.weigh(e.States)
	return e, nil
}

// compute runs the network on some chunks, which skip as many layers, and fills in their rows.
func (t *Text) compute(ctx context.Context, s family.Session, member int, loras LoRAs, chunks []chunk, missing []int, rows []float32) error {
	first := chunks[missing[0]]
	r, err := t.run(s.Network(member), member, loras, len(missing), first.skip)
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
		input = append(input, chunks[i].ids...)
	}
	states, pooled := make([]float32, len(missing)*n), make([]float32, len(missing)*t.Tokens*t.Projection)
	if err := family.First(
		func() error {
			if len(missing) > 1 {
				return nil
			}
			rows := make([]float32, t.vectors()*t.Config.HiddenSize)
			copy(rows, first.extra)
			return run.Write(modeldir.InputExtra, rows)
		},
		func() error { return loras.write(run) },
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
		place := at*t.Tokens + t.Config.Pooled(chunks[i].IDs)
		copy(row[n:], pooled[place*t.Projection:])
	}
	return nil
}
