package cpu

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/device"
)

// step is one op of a tape on this device.
type step interface {
	// carve takes the step's workspace; all steps of a tape use the same memory in turn. It is called
	// with a counting carver to measure, and once more to bind.
	carve(c *carver, threads int)
	// bind fixes the operands and gives the step's jobs, to run in order.
	bind(b *binding) []*job
}

// program is a tape's ops and where their memory lies in an arena: arrays, zeros, workspace.
type program struct {
	steps     []step
	arrays    device.ScratchPlan
	zeros     int // floats that stay zero: the pixels around an image
	workspace int64
}

// program plans a tape that runs whole. The error is the tape's, or a device.FieldError.
func (p *Planner) program(t *device.Tape) (*program, error) {
	arrays, err := device.PlanScratch(t)
	if err != nil {
		return nil, err
	}
	out := &program{arrays: arrays}
	for i, op := range t.Ops() {
		s, err := p.step(op, t)
		if err != nil {
			return nil, fmt.Errorf("op %d: %w", i, err)
		}
		if o, ok := op.(*device.Conv2D); ok {
			for _, x := range o.Inputs() {
				out.zeros = max(out.zeros, lastDim(x))
			}
		}
		var c carver
		s.carve(&c, p.threads)
		out.workspace = max(out.workspace, c.used)
		out.steps = append(out.steps, s)
	}
	return out, nil
}

func (p *Planner) step(op device.Op, t *device.Tape) (step, error) {
	m, threads, pairs := t.Manifest(), p.threads, p.compute == device.ComputeBF16
	switch o := op.(type) {
	case *device.Gemm:
		return newGemm(o, m, threads, pairs), nil
	case *device.Conv2D:
		if a := p.conv.of(o, m, p.compute); a != Direct {
			return newWinograd(o, m, threads, a.winograd(o)), nil
		}
		return newConv(o, m, threads, pairs), nil
	case *device.GroupNorm:
		return newGroupNorm(o)
	case *device.LayerNorm:
		return newLayerNorm(o)
	case *device.Attention:
		if pairs {
			return newPairedAttention(o, threads), nil
		}
		return newAttention(o, threads), nil
	case *device.GEGLU:
		return &geglu{op: o}, nil
	case *device.Embed:
		return newEmbed(o, t)
	case *device.Concat:
		return &concat{op: o}, nil
	case *device.Activate:
		return &activate{op: o}, nil
	case *device.Axpy:
		return &axpy{op: o}, nil
	case *device.Affine:
		return &affine{op: o}, nil
	}
	return nil, &device.FieldError{Field: "tape", Expected: "ops of package device", Got: fmt.Sprintf("%T", op)}
}

// bytes is the size of the arena.
func (p *program) bytes() int64 {
	return p.arrays.Bytes + alignLine(4*int64(p.zeros)) + p.workspace
}

// binding resolves operands of ops to memory.
type binding struct {
	*program
	weights *weights
	feed    *feed // nil unless weights change from step to step
	scratch []byte
}

// floats is an array's values, nil for no array.
func (b *binding) floats(a device.Array) []float32 {
	if !a.Present() {
		return nil
	}
	return view[float32](b.scratch[b.arrays.Offsets[a.ID-1]:], elems(a))
}

func (b *binding) all(arrays []device.Array) (out [][]float32) {
	for _, a := range arrays {
		out = append(out, b.floats(a))
	}
	return out
}

func (b *binding) ids(a device.Array) []int32 {
	return view[int32](b.scratch[b.arrays.Offsets[a.ID-1]:], elems(a))
}

func (b *binding) zeroRow() []float32 {
	return view[float32](b.scratch[b.arrays.Bytes:], b.zeros)
}

// jobs binds every step; the result is by step.
func (b *binding) jobs(threads int) [][]*job {
	workspace := b.scratch[b.arrays.Bytes+alignLine(4*int64(b.zeros)):]
	out := make([][]*job, len(b.steps))
	for i, s := range b.steps {
		c := carver{mem: workspace}
		s.carve(&c, threads)
		if b.feed != nil {
			b.weights = b.feed.weightsOf(i)
		}
		out[i] = s.bind(b)
	}
	return out
}

func elems(a device.Array) int {
	n, _ := a.Shape.Elems()
	return n
}

func lastDim(a device.Array) int { return a.Shape[len(a.Shape)-1] }

func ceilDiv(a, b int) int { return (a + b - 1) / b }
