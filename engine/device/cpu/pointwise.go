package cpu

import (
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// The ops here are bound by the memory, or by the activation they apply.

type geglu struct {
	op *device.GEGLU
}

func (g *geglu) carve(*carver, int) {}

func (g *geglu) bind(b *binding) []*job {
	x, out, n := b.floats(g.op.X), b.floats(g.op.Out), lastDim(g.op.Out)
	return []*job{rowsJob(len(out)/n, n, func(_, r int) {
		kernel.GEGLU(out[r*n:][:n], x[2*r*n:], x[(2*r+1)*n:])
	})}
}

type concat struct {
	op *device.Concat
}

func (c *concat) carve(*carver, int) {}

func (c *concat) bind(b *binding) []*job {
	x, y, out := b.floats(c.op.A), b.floats(c.op.B), b.floats(c.op.Out)
	nx, ny := lastDim(c.op.A), lastDim(c.op.B)
	n := nx + ny
	return []*job{rowsJob(len(out)/n, n, func(_, r int) {
		copy(out[r*n:], x[r*nx:][:nx])
		copy(out[r*n+nx:], y[r*ny:][:ny])
	})}
}

type activate struct {
	op *device.Activate
}

func (a *activate) carve(*carver, int) {}

func (a *activate) bind(b *binding) []*job {
	x, out := b.floats(a.op.X), b.floats(a.op.Out)
	slopes := rectifier{act: a.op.Act, n: min(len(x), chunkElems)}.slopes(nil)
	return []*job{chunksJob(len(x), func(first, end int) {
		if slopes != nil {
			kernel.PReLU(out[first:end], x[first:], slopes)
		} else {
			kernel.Activate(out[first:end], x[first:], kernel.Act(a.op.Act))
		}
	})}
}

// chunksJob does f for pieces of n floats.
func chunksJob(n int, f func(first, end int)) *job {
	return newJob(ceilDiv(n, chunkElems), func(_, task int) {
		first := task * chunkElems
		f(first, min(first+chunkElems, n))
	})
}

// rectifier is an activation that has slopes for n channels.
type rectifier struct {
	act    device.Activation
	weight device.Weight // of PReLU
	n      int
}

// activationOf divides the activation of a convolution into one of the kernels' and a rectifier, of which it has one at most.
func activationOf(o *device.Conv2D) (kernel.Act, rectifier) {
	if o.Act.Rectifies() {
		return kernel.None, rectifier{o.Act, o.Slopes, lastDim(o.Out)}
	}
	return kernel.Act(o.Act), rectifier{}
}

// slopes are those by channel, nil without a rectifier.
func (r rectifier) slopes(w *weights) []float32 {
	switch r.act {
	case device.PReLU:
		return w.vector(r.weight)
	case device.LeakyReLU:
		return slices.Repeat([]float32{device.LeakySlope}, r.n)
	case device.ReLU:
		return make([]float32, r.n)
	}
	return nil
}

type axpy struct {
	op *device.Axpy
}

func (a *axpy) carve(*carver, int) {}

func (a *axpy) bind(b *binding) []*job {
	x, y, out := b.floats(a.op.X), b.floats(a.op.Y), b.floats(a.op.Out)
	return []*job{chunksJob(len(x), func(first, end int) {
		dst := out[first:end]
		copy(dst, x[first:]) // unless they are there
		kernel.Scale(dst, a.op.A)
		kernel.Add(dst, dst, y[first:])
	})}
}

type affine struct {
	op *device.Affine
}

func (a *affine) carve(*carver, int) {}

func (a *affine) bind(b *binding) []*job {
	x, out, n := b.floats(a.op.X), b.floats(a.op.Out), lastDim(a.op.X)
	mul, add := b.floats(a.op.Mul), b.floats(a.op.Add)
	return []*job{rowsJob(len(x)/n, n, func(_, r int) {
		dst := out[r*n:][:n]
		copy(dst, x[r*n:]) // unless they are there
		if mul != nil {
			kernel.Scale(dst, mul[0])
		}
		if add != nil {
			kernel.Add(dst, dst, add)
		}
	})}
}

// embed gathers rows of tables. Ids are in range: Run.WriteIDs checks them, and zero is one.
type embed struct {
	op      *device.Embed
	rows    int         // of the table
	scratch [][]float32 // by thread, two rows
}

func newEmbed(o *device.Embed, t *device.Tape) (*embed, error) {
	for _, in := range t.Inputs() {
		if in.IDs && in.Array.ID == o.IDs.ID {
			return &embed{op: o, rows: t.Manifest().At(o.Tokens).Shape[0]}, nil
		}
	}
	return nil, &device.FieldError{Field: "embed", Expected: "ids from an id input", Got: fmt.Sprintf("array %v", o.IDs.Shape)}
}

func (e *embed) carve(c *carver, threads int) {
	e.scratch = make([][]float32, threads)
	for i := range e.scratch {
		e.scratch[i] = take[float32](c, 2*lastDim(e.op.Out))
	}
}

func (e *embed) bind(b *binding) []*job {
	ids, out, c := b.ids(e.op.IDs), b.floats(e.op.Out), lastDim(e.op.Out)
	tokens := b.weights.table(e.op.Tokens)
	var extra []float32
	if e.op.Extra.Present() {
		extra = b.floats(e.op.Extra)
	}
	token := func(id int, scratch, out []float32) []float32 {
		if id < e.rows {
			return tokens.get(id, scratch, out)
		}
		return extra[(id-e.rows)*c:][:c]
	}
	if !e.op.Positions.Present() {
		return []*job{rowsJob(len(ids), c, func(thread, r int) {
			out := out[r*c:][:c]
			copy(out, token(int(ids[r]), e.scratch[thread][:c], out))
		})}
	}
	positions, length := b.weights.table(e.op.Positions), e.op.IDs.Shape[1]
	return []*job{rowsJob(len(ids), c, func(thread, r int) {
		s, out := e.scratch[thread], out[r*c:][:c]
		kernel.Add(out, token(int(ids[r]), s[:c], out), positions.get(r%length, s[c:][:c], out))
	})}
}
