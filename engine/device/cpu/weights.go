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
	freed  atomic.Bool // or about to be
	stream *stream     // nil if every parameter is resident

	// Of a view for a tape over several manifests: the weights it is of, and those behind them. nil of loaded weights.
	of      *weights
	further []*weights
}

// weightPlan places the parameters of a manifest in an arena.
type weightPlan struct {
	offsets []int64 // by index in the manifest; notResident for a parameter without a place
	bytes   int64
	buffer  int64 // of the two at the end of the arena
}

// planWeights places what it can; the error is a device.FieldError for the first parameter that
// has no size.
func planWeights(m *device.Manifest, l device.LoadPlan) (weightPlan, error) {
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
	if l.Streamed {
		p = p.partly(m, l.ResidentBytes)
	}
	return p, first
}

func parameterError(p *device.Param, expected, got string) error {
	return &device.FieldError{Field: "parameter " + p.Name, Expected: expected, Got: got}
}

// Bytes is the size of the arena.
func (w *weights) Bytes() int64 { return w.arena.bytes() }

// Free unmaps the arena.
func (w *weights) Free() {
	w.freed.Store(true)
	if w.stream != nil { // an execution reads them
		w.stream.turn <- struct{}{}
		defer func() { <-w.stream.turn }()
	}
	w.arena.free()
}

// Offload leaves the arena where it is, behind an execution that reads it. Of streamed weights the sources stay open.
func (w *weights) Offload(ctx context.Context) error {
	if w.stream != nil {
		select {
		case w.stream.turn <- struct{}{}:
			defer func() { <-w.stream.turn }()
		case <-ctx.Done():
		}
	}
	return w.dev.offload(ctx, w.arena)
}

// Onload counts the arena again.
func (w *weights) Onload(ctx context.Context) error { return w.dev.onload(ctx, w.arena) }

// offload is that of weights and runs. The only error is the context's.
func (d *Device) offload(ctx context.Context, a *arena) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: offload: %w", d.name, err)
	}
	a.offload()
	return nil
}

// onload is that of weights and runs; it waits for nothing.
func (d *Device) onload(ctx context.Context, a *arena) error {
	err := ctx.Err()
	if err == nil {
		err = a.onload()
	}
	if err != nil {
		return fmt.Errorf("%s: onload: %w", d.name, err)
	}
	return nil
}

// usable reports why the weights cannot be used.
func (w *weights) usable() error {
	if w.of != nil {
		for _, part := range append([]*weights{w.of}, w.further...) {
			if err := part.usable(); err != nil {
				return err
			}
		}
		return nil
	}
	if w.freed.Load() {
		return fmt.Errorf("weights %w", device.ErrFreed)
	}
	return w.arena.usable("weights")
}

// fits reports why the weights cannot serve ops recorded over m.
func (w *weights) fits(m *device.Manifest) error {
	if err := w.usable(); err != nil {
		return err
	}
	if len(m.Params) != len(w.params) {
		return &device.FieldError{Field: "weights", Expected: fmt.Sprintf("the tape's %d parameters", len(m.Params)), Got: fmt.Sprint(len(w.params))}
	}
	for i, p := range m.Params {
		if q := w.params[i]; p.Name != q.Name || p.Layout != q.Layout || p.DType != q.DType || p.Resident != q.Resident || !p.Shape.Equal(q.Shape) || !slices.Equal(p.From, q.From) {
			return parameterError(&p, fmt.Sprintf("%v %v kept as %v", p.DType, p.Shape, kept(&p)), fmt.Sprintf("%s %v %v kept as %v", q.Name, q.DType, q.Shape, kept(&q)))
		}
	}
	return nil
}

// joined are the weights of a tape's manifests as its ops find them.
func (d *Device) joined(manifests []*device.Manifest, all []device.Weights) (*weights, error) {
	if len(all) != len(manifests) {
		return nil, &device.FieldError{Field: "weights", Expected: fmt.Sprintf("those of the tape's %d manifests", len(manifests)), Got: fmt.Sprint(len(all))}
	}
	var own []*weights
	for i, one := range all {
		w, err := d.asWeights(one)
		if err != nil {
			return nil, err
		}
		if err := w.fits(manifests[i]); err != nil {
			return nil, err
		}
		if i > 0 && w.stream != nil {
			return nil, &device.UnsupportedError{Device: d.name, What: "streaming weights of a further manifest"}
		}
		own = append(own, w)
	}
	if len(own) == 1 {
		return own[0], nil
	}
	return own[0].view(own[0].plan, own[1:]), nil
}

// view is the weights with places of their own for some parameters, and others behind them.
func (w *weights) view(plan weightPlan, further []*weights) *weights {
	v := &weights{dev: w.dev, plan: plan, arena: w.arena, params: w.params, stream: w.stream, of: w, further: further}
	if w.of != nil {
		v.of = w.of
	}
	return v
}

// place is whose parameter at is, and its index there.
func (w *weights) place(at device.Weight) (*weights, int) {
	i := at.Index()
	for _, part := range w.further {
		if i < len(w.params) {
			break
		}
		i -= len(w.params)
		w = part
	}
	return w, i
}

// vector gives a Vector's values, nil for no weight.
func (w *weights) vector(at device.Weight) []float32 {
	if !at.Present() {
		return nil
	}
	w, i := w.place(at)
	return view[float32](w.arena.mem[w.plan.offsets[i]:], w.params[i].Shape[0])
}

// packed is a matrix, filter or table in the type it is kept in, in rows of the same length: panels, or
// rows of the table. One of f32, f16, bf16, i8 and i4 is set; scales are by panel with i8, by group with i4.
type packed struct {
	f32       []float32
	f16, bf16 []uint16
	i8        []int8
	i4        []uint8
	scales    [][kernel.TileCols]float32
	row       int
}

func (w *weights) packed(at device.Weight) packed {
	w, i := w.place(at)
	p := &w.params[i]
	rows, row := packedShape(p)
	mem := w.arena.mem[w.plan.offsets[i]:]
	switch kept(p) {
	case tensor.F16:
		return packed{row: row, f16: view[uint16](mem, rows*row)}
	case tensor.BF16:
		return packed{row: row, bf16: view[uint16](mem, rows*row)}
	case tensor.I8:
		values, scales := quantised[int8](p, mem)
		return packed{row: row, i8: values, scales: scales}
	case tensor.I4:
		values, scales := quantised[uint8](p, mem)
		return packed{row: row, i4: values, scales: scales}
	}
	return packed{row: row, f32: view[float32](mem, rows*row)}
}

// widen gives n elements of one row as float32: in place if they are stored so, else in buf. For I8
// and I4, at and n are multiples of TileCols.
func (p packed) widen(at, n int, buf []float32) []float32 {
	switch {
	case p.f16 != nil:
		kernel.WidenF16(buf[:n], p.f16[at:])
	case p.bf16 != nil:
		kernel.WidenBF16(buf[:n], p.bf16[at:])
	case p.i8 != nil:
		kernel.WidenI8(buf[:n], p.i8[at:], &p.scales[at/p.row])
	case p.i4 != nil:
		p.widenI4(at, buf[:n])
	default:
		return p.f32[at:][:n]
	}
	return buf[:n]
}

// panels gives elements at to at+size of n rows from row on as float32, step apart: in place if they are stored so, else in
// buf.
func (p packed) panels(row, n, at, size int, buf []float32) (values []float32, step int) {
	if p.f32 != nil {
		return p.f32[row*p.row+at:][:(n-1)*p.row+size], p.row
	}
	for i := range n {
		p.widen((row+i)*p.row+at, size, buf[i*size:])
	}
	return buf[:n*size], size
}

// widenI4 is widen, group by group.
func (p packed) widenI4(at int, dst []float32) {
	panel, in := at/p.row, at%p.row
	for len(dst) > 0 {
		n := min(len(dst), groupElems-in%groupElems)
		kernel.WidenI4(dst[:n], p.i4[at/2:], &p.scales[panel*groups(p.row)+in/groupElems])
		dst, at, in = dst[n:], at+n, in+n
	}
}

// asWeights is the weights if this device loaded them.
func (d *Device) asWeights(w device.Weights) (*weights, error) {
	own, ok := w.(*weights)
	if !ok || own.dev != d {
		return nil, &device.FieldError{Field: "weights", Expected: "weights loaded on " + d.name, Got: "another device's"}
	}
	return own, nil
}
