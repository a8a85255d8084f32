package cpu

import (
	"context"
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/engine/device"
)

// run is a program bound to its arena.
type run struct {
	dev     *Device
	tape    *device.Tape
	weights *weights
	arena   *arena
	memory  *binding // of the arena
	feed    *feed    // nil if every parameter is resident
	jobs    [][]*job // by op

	prologue int  // ops that depend on fixed inputs alone
	stale    bool // the prologue has not run on the present values of fixed inputs
}

func (d *Device) newRun(t *device.Tape, all []device.Weights, o device.RunOptions) (device.Run, error) {
	w, err := d.joined(t.Manifests(), all)
	if err != nil {
		return nil, err
	}
	if w.stream != nil && slices.ContainsFunc(t.Ops(), func(op device.Op) bool { return ownTerms(op, len(w.params)) }) {
		return nil, &device.UnsupportedError{Device: d.name, What: "streaming the weights of a gemm's terms"}
	}
	whole, banded, err := d.plan(t, o)
	switch {
	case err != nil:
		return nil, err
	case banded != nil:
		return d.newBandedRun(t, w, banded)
	}
	return d.newWholeRun(t, w, whole)
}

// ownTerms reports whether an op has terms with weights of the first manifest, which has so many parameters.
func ownTerms(op device.Op, params int) bool {
	gemm, ok := op.(*device.Gemm)
	return ok && slices.ContainsFunc(gemm.Terms, func(term device.Term) bool { return term.W.Index() < params })
}

func (d *Device) newWholeRun(t *device.Tape, w *weights, p *program) (*run, error) {
	arena, err := newArena(d.ledger, p.bytes())
	if err != nil {
		return nil, err
	}
	b := &binding{program: p, weights: w, feed: newFeed(w, t), scratch: arena.mem}
	return &run{dev: d, tape: t, weights: w, arena: arena, memory: b, feed: b.feed, jobs: b.jobs(d.threads), prologue: t.Prologue(), stale: true}, nil
}

// Write copies v into a float input.
func (r *run) Write(name string, v []float32) error {
	if err := r.arena.usable("run"); err != nil {
		return err
	}
	in, err := r.tape.FindInput(name, len(v))
	if err != nil {
		return err
	}
	copy(r.memory.floats(in.Array), v)
	r.stale = r.stale || in.Fixed
	return nil
}

// WriteIDs copies ids into an id input, if every one is a row of the table.
func (r *run) WriteIDs(name string, ids []int32) error {
	if err := r.arena.usable("run"); err != nil {
		return err
	}
	in, err := r.tape.FindIDs(name, ids)
	if err != nil {
		return err
	}
	copy(r.memory.ids(in.Array), ids)
	return nil
}

// Read copies an output into v.
func (r *run) Read(name string, v []float32) error {
	if err := r.arena.usable("run"); err != nil {
		return err
	}
	out, err := r.tape.FindOutput(name, len(v))
	if err != nil {
		return err
	}
	copy(v, r.memory.floats(out.Array))
	return nil
}

// Execute runs op after op on the device's threads, without those of the prologue unless it is stale.
func (r *run) Execute(ctx context.Context) error {
	if err := executable(r.arena, r.weights); err != nil {
		return err
	}
	defer r.dev.runs()()
	start := r.prologue
	if r.stale {
		start = 0
	}
	return r.feed.execute(ctx, start, len(r.jobs), func(op int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, j := range r.jobs[op] {
			if !r.dev.pool.run(j) {
				return fmt.Errorf("%s: %w", r.dev.name, device.ErrFreed)
			}
		}
		if op+1 >= r.prologue {
			r.stale = false
		}
		return nil
	})
}

// Bytes is the size of the arena.
func (r *run) Bytes() int64 { return r.arena.bytes() }

// executable reports why a run with this memory cannot be executed.
func executable(scratch *arena, w *weights) error {
	if err := scratch.usable("run"); err != nil {
		return err
	}
	return w.usable()
}

// Offload leaves the arena where it is.
func (r *run) Offload(ctx context.Context) error { return r.dev.offload(ctx, r.arena) }

// Onload counts the arena again.
func (r *run) Onload(ctx context.Context) error { return r.dev.onload(ctx, r.arena) }

// Free unmaps the arena.
func (r *run) Free() { r.arena.free() }
