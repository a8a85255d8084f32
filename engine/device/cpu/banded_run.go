package cpu

import (
	"context"

	"github.com/triptych-serving/triptych/engine/device"
)

// bandedRun is a banded program with its scratch and its file.
type bandedRun struct {
	*bandedProgram
	dev     *Device
	tape    *device.Tape
	feed    *feed // nil if every parameter is resident
	weights *weights
	arena   *arena
	spill   *spill
}

func (d *Device) newBandedRun(t *device.Tape, w *weights, p *bandedProgram) (*bandedRun, error) {
	arena, err := newArena(d.ledger, p.bytes)
	if err != nil {
		return nil, err
	}
	file, err := newSpill(d.name, d.spillDir, p.arrays.Bytes)
	if err != nil {
		arena.free()
		return nil, err
	}
	return &bandedRun{bandedProgram: p, dev: d, tape: t, feed: newFeed(w, t), weights: w, arena: arena, spill: file}, nil
}

// Write copies v into a float input.
func (r *bandedRun) Write(name string, v []float32) error {
	if err := r.arena.usable("run"); err != nil {
		return err
	}
	in, err := r.tape.FindInput(name, len(v))
	if err != nil {
		return err
	}
	return r.spill.write(v, r.arrays.Offsets[in.Array.ID-1])
}

// WriteIDs copies ids into an id input, if every one is a row of the table.
func (r *bandedRun) WriteIDs(name string, ids []int32) error {
	if err := r.arena.usable("run"); err != nil {
		return err
	}
	in, err := r.tape.FindIDs(name, ids)
	if err != nil {
		return err
	}
	return r.spill.write(view[float32](raw(ids), len(ids)), r.arrays.Offsets[in.Array.ID-1])
}

// Read copies an output into v.
func (r *bandedRun) Read(name string, v []float32) error {
	if err := r.arena.usable("run"); err != nil {
		return err
	}
	out, err := r.tape.FindOutput(name, len(v))
	if err != nil {
		return err
	}
	return r.spill.read(v, r.arrays.Offsets[out.Array.ID-1])
}

// Execute computes op after op. It ends within one band when ctx does; the error may be a
// device.SpillError.
func (r *bandedRun) Execute(ctx context.Context) error {
	if err := executable(r.arena, r.weights); err != nil {
		return err
	}
	defer r.dev.runs()()
	return r.feed.execute(ctx, 0, len(r.ops), func(op int) error {
		x := &execution{r, ctx, r.weights}
		if r.feed != nil {
			x.weights = r.feed.weightsOf(op)
		}
		return r.ops[op].execute(x, r.sides[op])
	})
}

// Bytes is the size of the arena.
func (r *bandedRun) Bytes() int64 { return r.arena.bytes() }

// Offload leaves the arena and the file where they are.
func (r *bandedRun) Offload(ctx context.Context) error { return r.dev.offload(ctx, r.arena) }

// Onload counts the arena again.
func (r *bandedRun) Onload(ctx context.Context) error { return r.dev.onload(ctx, r.arena) }

// Free unmaps the arena and closes the file.
func (r *bandedRun) Free() {
	if r.arena.free() {
		r.spill.close()
	}
}
