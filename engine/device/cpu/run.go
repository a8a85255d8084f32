package cpu

import (
	"context"
	"fmt"
	"math"

	"github.com/triptych-serving/triptych/engine/device"
)

// run is a program bound to its arena.
type run struct {
	dev     *Device
	weights *weights
	arena   *arena
	inputs  map[string]input
	outputs map[string]output
	jobs    [][]*job // by op
	feed    *feed    // nil if every parameter is resident

	prologue int  // ops that depend on fixed inputs alone
	stale    bool // the prologue has not run on the present values of fixed inputs
}

// input is where an input's values go: one of the slices is set. rows is the smallest table that
// ids index.
type input struct {
	floats []float32
	ids    []int32
	rows   int
	fixed  bool
	shape  string
}

type output struct {
	floats []float32
	shape  string
}

func (d *Device) newRun(t *device.Tape, lw device.Weights, o device.RunOptions) (device.Run, error) {
	w, err := d.asWeights(lw)
	if err != nil {
		return nil, err
	}
	if err := w.fits(t.Manifest()); err != nil {
		return nil, err
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

func (d *Device) newWholeRun(t *device.Tape, w *weights, p *program) (*run, error) {
	arena, err := newArena(d.ledger, p.bytes())
	if err != nil {
		return nil, err
	}
	b := &binding{program: p, weights: w, feed: newFeed(w, t), scratch: arena.mem}
	r := &run{
		dev: d, weights: w, arena: arena, inputs: map[string]input{}, outputs: map[string]output{}, jobs: b.jobs(d.threads), feed: b.feed,
		prologue: t.Prologue(), stale: true,
	}
	for _, in := range t.Inputs() {
		v := input{shape: in.Array.Shape.String(), fixed: in.Fixed}
		if in.IDs {
			v.ids, v.rows = b.ids(in.Array), tableRows(t, in.Array)
		} else {
			v.floats = b.floats(in.Array)
		}
		r.inputs[in.Name] = v
	}
	for _, out := range t.Outputs() {
		r.outputs[out.Name] = output{floats: b.floats(out.Array), shape: out.Array.Shape.String()}
	}
	return r, nil
}

// tableRows is the rows of the smallest table that ids are looked up in.
func tableRows(t *device.Tape, ids device.Array) int {
	rows := math.MaxInt
	for _, op := range t.Ops() {
		if e, ok := op.(*device.Embed); ok && e.IDs.ID == ids.ID {
			rows = min(rows, t.Manifest().At(e.Tokens).Shape[0])
		}
	}
	return rows
}

// Write copies v into a float input.
func (r *run) Write(name string, v []float32) error {
	in, err := r.input(name)
	if err != nil {
		return err
	}
	if in.floats == nil {
		return &device.FieldError{Field: "input " + name, Expected: "ids", Got: "float values"}
	}
	if len(v) != len(in.floats) {
		return lengthError("input "+name, in.shape, len(in.floats), len(v))
	}
	copy(in.floats, v)
	r.stale = r.stale || in.fixed
	return nil
}

// WriteIDs copies ids into an id input, if every one is a row of the table.
func (r *run) WriteIDs(name string, ids []int32) error {
	in, err := r.input(name)
	if err != nil {
		return err
	}
	if in.ids == nil {
		return &device.FieldError{Field: "input " + name, Expected: "float values", Got: "ids"}
	}
	if len(ids) != len(in.ids) {
		return lengthError("input "+name, in.shape, len(in.ids), len(ids))
	}
	if err := checkIDs(name, ids, in.rows); err != nil {
		return err
	}
	copy(in.ids, ids)
	return nil
}

// checkIDs refuses ids that are no rows of the table. The error is a device.FieldError.
func checkIDs(name string, ids []int32, rows int) error {
	for i, id := range ids {
		if id < 0 || int(id) >= rows {
			return &device.FieldError{Field: "input " + name, Expected: fmt.Sprintf("ids from 0 to %d", rows-1), Got: fmt.Sprintf("%d at %d", id, i)}
		}
	}
	return nil
}

// Read copies an output into v.
func (r *run) Read(name string, v []float32) error {
	if err := r.arena.usable("run"); err != nil {
		return err
	}
	out, ok := r.outputs[name]
	if !ok {
		return &device.FieldError{Field: "output " + name, Expected: "an output of the tape", Got: "an unknown name"}
	}
	if len(v) != len(out.floats) {
		return lengthError("output "+name, out.shape, len(out.floats), len(v))
	}
	copy(v, out.floats)
	return nil
}

func (r *run) input(name string) (input, error) {
	if err := r.arena.usable("run"); err != nil {
		return input{}, err
	}
	in, ok := r.inputs[name]
	if !ok {
		return input{}, &device.FieldError{Field: "input " + name, Expected: "an input of the tape", Got: "an unknown name"}
	}
	return in, nil
}

func lengthError(field, shape string, want, got int) error {
	return &device.FieldError{Field: field, Expected: fmt.Sprintf("%d values of %s", want, shape), Got: fmt.Sprint(got)}
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
