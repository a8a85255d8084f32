package cpu

import (
	"context"
	"slices"

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
	in, err := r.port("input", name, r.tape.Inputs(), len(v))
	switch {
	case err != nil:
		return err
	case in.IDs:
		return &device.FieldError{Field: "input " + name, Expected: "ids", Got: "float values"}
	}
	return r.spill.write(v, r.arrays.Offsets[in.Array.ID-1])
}

// WriteIDs copies ids into an id input, if every one is a row of the table.
func (r *bandedRun) WriteIDs(name string, ids []int32) error {
	in, err := r.port("input", name, r.tape.Inputs(), len(ids))
	switch {
	case err != nil:
		return err
	case !in.IDs:
		return &device.FieldError{Field: "input " + name, Expected: "float values", Got: "ids"}
	}
	if err := checkIDs(name, ids, tableRows(r.tape, in.Array)); err != nil {
		return err
	}
	return r.spill.write(view[float32](raw(ids), len(ids)), r.arrays.Offsets[in.Array.ID-1])
}

// Read copies an output into v.
func (r *bandedRun) Read(name string, v []float32) error {
	out, err := r.port("output", name, r.tape.Outputs(), len(v))
	if err != nil {
		return err
	}
	return r.spill.read(v, r.arrays.Offsets[out.Array.ID-1])
}

// port finds an input or output that holds so many values.
func (r *bandedRun) port(kind, name string, ports []device.Named, values int) (device.Named, error) {
	if err := r.arena.usable("run"); err != nil {
		return device.Named{}, err
	}
	i := slices.IndexFunc(ports, func(n device.Named) bool { return n.Name == name })
	if i < 0 {
		return device.Named{}, &device.FieldError{Field: kind + " " + name, Expected: "an " + kind + " of the tape", Got: "an unknown name"}
	}
	if want := elems(ports[i].Array); values != want {
		return device.Named{}, lengthError(kind+" "+name, ports[i].Array.Shape.String(), want, values)
	}
	return ports[i], nil
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
