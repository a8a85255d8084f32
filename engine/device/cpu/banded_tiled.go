package cpu

import (
	"slices"

	"github.com/triptych-serving/triptych/engine/device"
)

// tiled is an op whose output pixels depend on the same pixels of its operands, or on those under a
// filter. A band is a small tape with this one op on windows, planned and bound as any tape is.
type tiled struct {
	manifest *device.Manifest
	out      grid
	in       []operand
	// tile is the pixels of a band of a side.
	tile func(side int) (h, w int)
	// record records the op over the windows of its operands, zero Arrays for those that it has not.
	record func(t *device.Tape, in []device.Array) device.Array
}

// operand is an array with the window of it that a window of the output needs.
type operand struct {
	grid
	ids    bool
	window func(out window) window
}

func newTiled(op device.Op, t *device.Tape) *tiled {
	b := &tiled{manifest: t.Manifest()}
	switch o := op.(type) {
	case *device.Gemm:
		operands := []device.Array{o.X, o.Residual}
		for _, term := range o.Terms {
			operands = append(operands, term.X)
		}
		b.flat(o.Out, operands...)
		b.record = func(t *device.Tape, in []device.Array) device.Array {
			op := *o
			op.X, op.Residual, op.Terms = in[0], in[1], slices.Clone(o.Terms)
			for i := range op.Terms {
				op.Terms[i].X = in[2+i]
			}
			return t.Gemm(op)
		}
	case *device.LayerNorm:
		b.flat(o.Out, o.X)
		b.record = func(t *device.Tape, in []device.Array) device.Array {
			op := *o
			op.X = in[0]
			return t.LayerNorm(op)
		}
	case *device.GEGLU:
		b.flat(o.Out, o.X)
		b.record = func(t *device.Tape, in []device.Array) device.Array { return t.GEGLU(device.GEGLU{X: in[0]}) }
	case *device.Concat:
		b.flat(o.Out, o.A, o.B)
		b.record = func(t *device.Tape, in []device.Array) device.Array {
			return t.Concat(device.Concat{A: in[0], B: in[1]})
		}
	case *device.Activate:
		b.flat(o.Out, o.X)
		b.record = func(t *device.Tape, in []device.Array) device.Array {
			return t.Activate(device.Activate{X: in[0], Act: o.Act})
		}
	case *device.Axpy:
		b.flat(o.Out, o.X, o.Y)
		b.record = func(t *device.Tape, in []device.Array) device.Array {
			return t.Axpy(device.Axpy{A: o.A, X: in[0], Y: in[1]})
		}
	case *device.Affine:
		b.flat(o.Out, o.X)
		for _, a := range []device.Array{o.Mul, o.Add} {
			all := flatGrid(a)
			b.in = append(b.in, operand{grid: all, window: func(window) window { return window{w: all.w, h: 1} }})
		}
		b.record = func(t *device.Tape, in []device.Array) device.Array {
			return t.Affine(device.Affine{X: in[0], Mul: in[1], Add: in[2]})
		}
	case *device.Embed:
		b.embed(o)
	case *device.Conv2D:
		b.conv(o)
	}
	return b
}

// flat is for ops that take pixels one by one.
func (b *tiled) flat(out device.Array, in ...device.Array) {
	same := func(out window) window { return out }
	for _, a := range in {
		b.in = append(b.in, operand{grid: flatGrid(a), window: same})
	}
	b.out = flatGrid(out)
	b.tile = func(side int) (h, w int) { return 1, side * side }
}

// embed takes texts one by one, because a token's position counts.
func (b *tiled) embed(o *device.Embed) {
	extra := flatGrid(o.Extra)
	b.in = []operand{
		{grid: tokensGrid(o.IDs), ids: true, window: func(out window) window { return out }},
		{grid: extra, window: func(window) window { return window{w: extra.w, h: 1} }},
	}
	b.out = tokensGrid(o.Out)
	b.tile = func(int) (h, w int) { return 1, b.out.w }
	b.record = func(t *device.Tape, in []device.Array) device.Array {
		op := *o
		op.IDs = in[0]
		if in[1].Present() {
			op.Extra = t.Reshape(in[1], extra.w, extra.c)
		}
		return t.Embed(op)
	}
}

// conv reads windows as they lie under the filter, with the padding and enlarged, so that the op
// itself needs neither.
func (b *tiled) conv(o *device.Conv2D) {
	w := b.manifest.At(o.W).Shape
	under := func(out window) window {
		return window{out.image, out.y*o.Stride - o.Top, out.x*o.Stride - o.Left, (out.h-1)*o.Stride + w[2], (out.w-1)*o.Stride + w[3]}
	}
	read := func(a device.Array) operand {
		x := pixelsGrid(a)
		if o.Upsample {
			x.up = 1
		}
		x.h, x.w = o.Read()
		return operand{grid: x, window: under}
	}
	shift := grid{array: o.PerImage, h: 1, w: 1}
	if o.PerImage.Present() {
		shift.images, shift.c = o.PerImage.Shape[0], o.PerImage.Shape[1]
	}
	b.in = []operand{
		read(o.X),
		{grid: shift, window: func(out window) window { return window{out.image % shift.images, 0, 0, 1, 1} }},
		{grid: pixelsGrid(o.Residual), window: func(out window) window { return out }},
	}
	for _, a := range o.More {
		b.in = append(b.in, read(a))
	}
	b.out = pixelsGrid(o.Out)
	b.tile = func(side int) (h, w int) { return side, side }
	b.record = func(t *device.Tape, in []device.Array) device.Array {
		op := *o
		op.Top, op.Left, op.Bottom, op.Right, op.Upsample, op.CropBottom, op.CropRight = 0, 0, 0, 0, false, 0, 0
		op.X, op.Residual, op.More = in[0], in[2], in[3:]
		if in[1].Present() {
			op.PerImage = t.Reshape(in[1], 1, shift.c)
		}
		return t.Conv2D(op)
	}
}

// program plans a band of h x w pixels; in and out are its arrays.
func (b *tiled) program(pl *Planner, h, w int) (p *program, in []device.Array, out device.Array, err error) {
	t := device.NewTape(b.manifest)
	in = make([]device.Array, len(b.in))
	for i, o := range b.in {
		if !o.array.Present() {
			continue
		}
		if at := o.window(window{h: h, w: w}); o.ids {
			in[i] = t.IDs("", 1, at.w)
		} else {
			in[i] = t.Input("", 1, at.h, at.w, o.c)
		}
	}
	out = b.record(t, in)
	t.Output("", out)
	p, err = pl.program(t)
	return p, in, out, err
}

// scratchBytes looks at bands of every size there is: smaller ones may need more workspace.
func (b *tiled) scratchBytes(pl *Planner, side int) (int64, error) {
	var most int64
	th, tw := b.tile(side)
	for _, h := range extents(b.out.h, th) {
		for _, w := range extents(b.out.w, tw) {
			p, _, _, err := b.program(pl, h, w)
			if err != nil {
				return 0, err
			}
			most = max(most, p.bytes())
		}
	}
	return most, nil
}

// extents are the lengths of the pieces of n: as long as they may be, and the rest.
func extents(n, most int) []int {
	switch {
	case n <= most:
		return []int{n}
	case n%most == 0:
		return []int{most}
	}
	return []int{most, n % most}
}

// bound is a band's program with its memory.
type bound struct {
	jobs  [][]*job
	in    [][]float32 // by operand
	out   []float32
	zeros []float32
}

func (b *tiled) bind(x *execution, h, w int) (*bound, error) {
	p, in, out, err := b.program(x.planner, h, w)
	if err != nil {
		return nil, err
	}
	memory := &binding{program: p, weights: x.weights, scratch: x.arena.mem}
	band := &bound{jobs: memory.jobs(x.dev.threads), out: memory.floats(out), zeros: memory.zeroRow()}
	for _, a := range in {
		band.in = append(band.in, memory.floats(a))
	}
	return band, nil
}

// execute computes the output band by band.
func (b *tiled) execute(x *execution, side int) error {
	bands := map[[2]int]*bound{}
	th, tw := b.tile(side)
	for image := range b.out.images {
		for y := 0; y < b.out.h; y += th {
			for px := 0; px < b.out.w; px += tw {
				w := window{image, y, px, min(th, b.out.h-y), min(tw, b.out.w-px)}
				size := [2]int{w.h, w.w}
				if bands[size] == nil {
					band, err := b.bind(x, w.h, w.w)
					if err != nil {
						return err
					}
					bands[size] = band
				}
				if err := b.compute(x, bands[size], w); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// compute is one band.
func (b *tiled) compute(x *execution, band *bound, w window) error {
	for i, o := range b.in {
		if !o.array.Present() {
			continue
		}
		if err := x.read(o.grid, o.window(w), band.in[i]); err != nil {
			return err
		}
	}
	clear(band.zeros) // other bands use the memory for something else
	for _, step := range band.jobs {
		for _, j := range step {
			if err := x.do(j); err != nil {
				return err
			}
		}
	}
	return x.write(b.out, w, band.out)
}
