package devicetest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/triptych-serving/triptych/engine/device"
)

// copiedWeights are weights on a Copying device, or in the host's memory.
type copiedWeights struct {
	device   *Copying
	manifest *device.Manifest
	plan     device.LoadPlan
	bytes    int64
	host     *mirror

	turn   chan struct{}  // holds a token while somebody uses them
	loaded device.Weights // nil unless they are on the device
	freed  bool
}

func (w *copiedWeights) Bytes() int64 { return w.bytes }

// use does something with the weights on the device. The error is do's, or wraps device.ErrFreed or device.ErrOffloaded.
func (w *copiedWeights) use(do func(loaded device.Weights) error) error {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	switch {
	case w.freed:
		return fmt.Errorf("weights %w", device.ErrFreed)
	case w.loaded == nil:
		return fmt.Errorf("weights %w", device.ErrOffloaded)
	}
	return do(w.loaded)
}

// Offload frees the memory on the device; the host has a copy.
func (w *copiedWeights) Offload(ctx context.Context) error {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return w.device.copies(ctx, w.bytes)
	}
	if w.freed || w.loaded == nil {
		return nil
	}
	if err := w.device.copies(ctx, w.bytes); err != nil {
		return err
	}
	w.loaded.Free()
	w.loaded = nil
	w.device.ledger.Offload(w.bytes)
	return nil
}

// Onload loads the host's copy.
func (w *copiedWeights) Onload(ctx context.Context) error {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	switch {
	case w.freed:
		return fmt.Errorf("%s: onload: %w", copyingName, device.ErrFreed)
	case w.loaded != nil:
		return nil
	}
	err := ctx.Err()
	if err == nil {
		err = w.device.ledger.Onload(w.bytes, func() error { return nil })
	}
	if err != nil {
		return fmt.Errorf("%s: onload: %w", copyingName, err)
	}
	loaded, err := w.device.Device.Load(ctx, w.manifest, w.plan, w.host, nil)
	if err != nil {
		w.device.ledger.Offload(w.bytes)
		return fmt.Errorf("%s: onload: %w", copyingName, err)
	}
	w.loaded = loaded
	return nil
}

func (w *copiedWeights) Free() {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	switch {
	case w.freed:
	case w.loaded != nil:
		w.loaded.Free()
		w.device.ledger.Release(w.bytes)
	default:
		w.device.ledger.Drop(w.bytes)
	}
	w.freed, w.loaded = true, nil
}

// copies reports why bytes cannot be copied to the host.
func (c *Copying) copies(ctx context.Context, bytes int64) error {
	err := ctx.Err()
	if err == nil && c.options.Fail != nil {
		err = c.options.Fail(bytes)
	}
	if err != nil {
		return fmt.Errorf("%s: offload: %w", copyingName, err)
	}
	return nil
}

// buffers are the values of inputs and outputs, by array.
type buffers struct {
	floats map[int][]float32
	ids    map[int][]int32
}

// newBuffers has NaN in them, and ids of 0.
func newBuffers(t *device.Tape) *buffers {
	b := &buffers{map[int][]float32{}, map[int][]int32{}}
	for _, n := range slices.Concat(t.Inputs(), t.Outputs()) {
		elems, _ := n.Array.Shape.Elems()
		if n.IDs {
			b.ids[n.Array.ID] = make([]int32, elems)
		} else {
			b.floats[n.Array.ID] = slices.Repeat([]float32{float32(math.NaN())}, elems)
		}
	}
	return b
}

// moved copies the values to new memory, and spoils them in the old.
func (b *buffers) moved() *buffers {
	to := &buffers{maps.Clone(b.floats), maps.Clone(b.ids)}
	for id, v := range b.floats {
		to.floats[id] = slices.Clone(v)
		for i := range v {
			v[i] = float32(math.NaN())
		}
	}
	for id, v := range b.ids {
		to.ids[id] = slices.Clone(v)
		clear(v)
	}
	return to
}

// copiedRun is a run on a Copying device.
type copiedRun struct {
	device  *Copying
	weights []*copiedWeights // of the tape's manifests
	tape    *device.Tape
	options device.RunOptions
	bytes   int64

	mu        sync.Mutex
	memory    *buffers // nil once it is freed
	offloaded bool     // it is the host's
}

func (r *copiedRun) Bytes() int64 { return r.bytes }

// usable gives the memory, or why it cannot be used.
func (r *copiedRun) usable() (*buffers, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.memory == nil:
		return nil, fmt.Errorf("run %w", device.ErrFreed)
	case r.offloaded:
		return nil, fmt.Errorf("run %w", device.ErrOffloaded)
	}
	return r.memory, nil
}

// Write copies v for the device to fetch later.
func (r *copiedRun) Write(input string, v []float32) error {
	b, err := r.usable()
	if err != nil {
		return err
	}
	in, err := r.tape.FindInput(input, len(v))
	if err != nil {
		return err
	}
	staged := slices.Clone(v)
	r.device.tell(func() { copy(b.floats[in.Array.ID], staged) })
	return nil
}

// WriteIDs copies ids for the device to fetch later.
func (r *copiedRun) WriteIDs(input string, ids []int32) error {
	b, err := r.usable()
	if err != nil {
		return err
	}
	in, err := r.tape.FindIDs(input, ids)
	if err != nil {
		return err
	}
	staged := slices.Clone(ids)
	r.device.tell(func() { copy(b.ids[in.Array.ID], staged) })
	return nil
}

// Read waits for the device to bring v.
func (r *copiedRun) Read(output string, v []float32) error {
	b, err := r.usable()
	if err != nil {
		return err
	}
	out, err := r.tape.FindOutput(output, len(v))
	if err != nil {
		return err
	}
	r.device.wait(func() { copy(v, b.floats[out.Array.ID]) })
	return nil
}

// Execute waits for the execution, which goes on to its end once it has begun: both sections are submitted together.
func (r *copiedRun) Execute(ctx context.Context) error {
	b, err := r.usable()
	if err != nil {
		return err
	}
	r.device.wait(func() {
		if err = ctx.Err(); err == nil {
			err = r.use(func(loaded []device.Weights) error { return r.compute(context.WithoutCancel(ctx), loaded, b) })
		}
		if err == nil {
			err = ctx.Err()
		}
	})
	return err
}

// use is copiedWeights.use of all weights.
func (r *copiedRun) use(do func(loaded []device.Weights) error) error {
	all := make([]device.Weights, 0, len(r.weights))
	var next func() error
	next = func() error {
		if len(all) == len(r.weights) {
			return do(all)
		}
		return r.weights[len(all)].use(func(loaded device.Weights) error {
			all = append(all, loaded)
			return next()
		})
	}
	return next()
}

// compute has the other device run the tape on a copy of the inputs.
func (r *copiedRun) compute(ctx context.Context, loaded []device.Weights, b *buffers) error {
	run, err := r.device.Device.NewRun(r.tape, loaded[0], r.options, loaded[1:]...)
	if err != nil {
		return err
	}
	defer run.Free()
	for _, in := range r.tape.Inputs() {
		if in.IDs {
			err = run.WriteIDs(in.Name, b.ids[in.Array.ID])
		} else {
			err = run.Write(in.Name, b.floats[in.Array.ID])
		}
		if err != nil {
			return err
		}
	}
	if err := run.Execute(ctx); err != nil {
		return err
	}
	for _, out := range r.tape.Outputs() {
		if err := run.Read(out.Name, b.floats[out.Array.ID]); err != nil {
			return err
		}
	}
	return nil
}

// Offload moves the buffers to the host.
func (r *copiedRun) Offload(ctx context.Context) (err error) {
	r.device.wait(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.memory == nil || r.offloaded {
			return
		}
		if err = r.device.copies(ctx, r.bytes); err == nil {
			r.memory, r.offloaded = r.memory.moved(), true
			r.device.ledger.Offload(r.bytes)
		}
	})
	return err
}

// Onload moves the buffers to another place on the device.
func (r *copiedRun) Onload(ctx context.Context) (err error) {
	r.device.wait(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		switch {
		case r.memory == nil:
			err = device.ErrFreed
		case !r.offloaded:
			return
		case ctx.Err() != nil:
			err = ctx.Err()
		default:
			err = r.device.ledger.Onload(r.bytes, func() error { return nil })
		}
		if err != nil {
			err = fmt.Errorf("%s: onload: %w", copyingName, err)
			return
		}
		r.memory, r.offloaded = r.memory.moved(), false
	})
	return err
}

func (r *copiedRun) Free() {
	r.device.wait(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		switch {
		case r.memory == nil:
		case r.offloaded:
			r.device.ledger.Drop(r.bytes)
		default:
			r.device.ledger.Release(r.bytes)
		}
		r.memory = nil
	})
}
