package cpu

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// weights is a loaded manifest: every parameter packed in one arena.
type weights struct {
	dev    *Device
	plan   weightPlan
	arena  *arena
	params []device.Param
	freed  atomic.Bool
}

// weightPlan places the parameters of a manifest in an arena.
type weightPlan struct {
	offsets []int64 // by index in the manifest
	bytes   int64
}

// planWeights places what it can; the error is a device.FieldError for the first parameter that
// has no size.
func planWeights(m *device.Manifest) (weightPlan, error) {
	p := weightPlan{offsets: make([]int64, len(m.Params))}
	var first error
	for i := range m.Params {
		n, err := packedBytes(&m.Params[i])
		if err == nil && n > math.MaxInt64/2-p.bytes {
			err = parameterError(&m.Params[i], "parameters that fit in memory", fmt.Sprintf("%d bytes more", n))
			n = 0
		}
		if err != nil && first == nil {
			first = err
		}
		p.offsets[i] = p.bytes
		p.bytes += alignLine(n)
	}
	return p, first
}

func parameterError(p *device.Param, expected, got string) error {
	return &device.FieldError{Field: "parameter " + p.Name, Expected: expected, Got: got}
}

func (d *Device) load(ctx context.Context, m *device.Manifest, src device.Source, progress func(int64)) (*weights, error) {
	if d.closed.Load() {
		return nil, device.ErrFreed
	}
	plan, err := planWeights(m)
	if err != nil {
		return nil, err
	}
	arena, err := newArena(d.ledger, plan.bytes)
	if err != nil {
		return nil, err
	}
	w := &weights{dev: d, plan: plan, arena: arena, params: slices.Clone(m.Params)}
	for i := range w.params {
		if err := w.pack(ctx, i, src); err != nil {
			arena.free()
			return nil, err
		}
		if progress == nil {
			continue
		}
		if i+1 < len(w.params) {
			progress(plan.offsets[i+1])
		} else {
			progress(arena.bytes())
		}
	}
	return w, nil
}

// pack copies parameter i from its source to its place.
func (w *weights) pack(ctx context.Context, i int, src device.Source) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := &w.params[i]
	data, err := src.Data(p.Name)
	if err != nil {
		return fmt.Errorf("parameter %s: %w", p.Name, err)
	}
	n, _ := p.Shape.Elems()
	if want := n * p.DType.Size(); len(data) != want {
		return parameterError(p, fmt.Sprintf("%d bytes of %v %v", want, p.DType, p.Shape), fmt.Sprintf("%d bytes", len(data)))
	}
	if !w.dev.pool.run(packJob(p, w.arena.mem[w.plan.offsets[i]:], data)) {
		return device.ErrFreed
	}
	return nil
}

// Bytes is the size of the arena.
func (w *weights) Bytes() int64 { return w.arena.bytes() }

// Free unmaps the arena.
func (w *weights) Free() {
	w.freed.Store(true)
	w.arena.free()
}

// fits reports why the weights cannot serve ops recorded over m.
func (w *weights) fits(m *device.Manifest) error {
	if w.freed.Load() {
		return fmt.Errorf("weights %w", device.ErrFreed)
	}
	if len(m.Params) != len(w.params) {
		return &device.FieldError{Field: "weights", Expected: fmt.Sprintf("the tape's %d parameters", len(m.Params)), Got: fmt.Sprint(len(w.params))}
	}
	for i, p := range m.Params {
		if q := w.params[i]; p.Name != q.Name || p.Layout != q.Layout || p.DType != q.DType || !p.Shape.Equal(q.Shape) {
			return parameterError(&p, fmt.Sprintf("%v %v", p.DType, p.Shape), fmt.Sprintf("%s %v %v", q.Name, q.DType, q.Shape))
		}
	}
	return nil
}

// vector gives a Vector's values, nil for no weight.
func (w *weights) vector(at device.Weight) []float32 {
	if !at.Present() {
		return nil
	}
	return view[float32](w.arena.mem[w.plan.offsets[at.Index()]:], w.params[at.Index()].Shape[0])
}

// packed is a matrix, filter or table in its stored type, in rows of the same length: panels, or
// rows of the table. One of the slices is set.
type packed struct {
	f32       []float32
	f16, bf16 []uint16
	row       int
}

func (w *weights) packed(at device.Weight) packed {
	p := &w.params[at.Index()]
	rows, row := packedShape(p)
	mem := w.arena.mem[w.plan.offsets[at.Index()]:]
	switch p.DType {
	case tensor.F16:
		return packed{row: row, f16: view[uint16](mem, rows*row)}
	case tensor.BF16:
		return packed{row: row, bf16: view[uint16](mem, rows*row)}
	}
	return packed{row: row, f32: view[float32](mem, rows*row)}
}

// widen gives n elements as float32: in place if they are stored so, else in buf.
func (p packed) widen(at, n int, buf []float32) []float32 {
	switch {
	case p.f16 != nil:
		kernel.WidenF16(buf[:n], p.f16[at:])
	case p.bf16 != nil:
		kernel.WidenBF16(buf[:n], p.bf16[at:])
	default:
		return p.f32[at:][:n]
	}
	return buf[:n]
}

// asWeights is the weights if this device loaded them.
func (d *Device) asWeights(w device.Weights) (*weights, error) {
	own, ok := w.(*weights)
	if !ok || own.dev != d {
		return nil, &device.FieldError{Field: "weights", Expected: "weights loaded on " + d.name, Got: "another device's"}
	}
	return own, nil
}
