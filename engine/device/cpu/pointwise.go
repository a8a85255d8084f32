package cpu

import (
	"fmt"

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
	return []*job{newJob(ceilDiv(len(x), chunkElems), func(_, task int) {
		first := task * chunkElems
		kernel.Activate(out[first:min(first+chunkElems, len(out))], x[first:], kernel.Act(a.op.Act))
	})}
}

// embed gathers rows of tables. Ids are in range: Run.WriteIDs checks them, and zero is one.
type embed struct {
	op      *device.Embed
	scratch [][]float32 // by thread, two rows
}

func newEmbed(o *device.Embed, t *device.Tape) (*embed, error) {
	for _, in := range t.Inputs() {
		if in.IDs && in.Array.ID == o.IDs.ID {
			return &embed{op: o}, nil
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
	tokens, positions := b.weights.table(e.op.Tokens), b.weights.table(e.op.Positions)
	length := e.op.IDs.Shape[1]
	return []*job{rowsJob(len(ids), c, func(thread, r int) {
		s, out := e.scratch[thread], out[r*c:][:c]
		kernel.Add(out, tokens.get(int(ids[r]), s[:c], out), positions.get(r%length, s[c:][:c], out))
	})}
}
