package cpu

import (
	"context"
	"fmt"
	"sync"

	"github.com/triptych-serving/triptych/engine/device"
)

// A banded run computes a tape whose arrays are too large for its scratch. The arrays lie in a spill
// file, placed by liveness as they would be in scratch. Every op is computed in bands: the windows of
// its operands that give a piece of its output are read into scratch, the op's own step computes the
// piece, and it is written back. A value is the same sum as in a whole run, in the same order; group
// norm and attention, which look at all pixels at once, merge what bands give in float64 and by
// rescaling.
//
// Bound like the whole run, plus the copies to and from the page cache.

// bandSides are the sides of a band in pixels, the best first: at 64 the pixels that two neighbours read
// are few, and a larger band takes memory and saves no time; at 16 a convolution still fills its tiles.
// Ops over pixels without neighbours take as many pixels in a row.
var bandSides = [...]int{64, 32, 16}

// bandedOp is one op of a tape, computed in bands.
type bandedOp interface {
	// scratchBytes is what bands of side x side pixels take.
	scratchBytes(p *Planner, side int) (int64, error)
	// execute computes the op in such bands.
	execute(x *execution, side int) error
}

// bandedProgram is a tape's ops with the sides of their bands, and where its arrays lie in the file.
type bandedProgram struct {
	planner *Planner // of the bands
	ops     []bandedOp
	sides   []int
	arrays  device.ScratchPlan
	bytes   int64 // of scratch
}

// planBanded takes the largest bands for each op that fit within limit bytes, else the smallest. The tape
// must be one that the device can run whole but for memory. The error is the tape's.
func (p *Planner) planBanded(t *device.Tape, limit int64) (*bandedProgram, error) {
	arrays, err := device.PlanScratch(t)
	if err != nil {
		return nil, err
	}
	out := &bandedProgram{planner: p, arrays: arrays}
	for i, op := range t.Ops() {
		b := newBandedOp(op, t)
		var bytes int64
		var side int
		for _, side = range bandSides {
			if bytes, err = b.scratchBytes(p, side); err != nil {
				return nil, fmt.Errorf("op %d: %w", i, err)
			}
			if mappedBytes(bytes) <= limit {
				break
			}
		}
		out.ops, out.sides = append(out.ops, b), append(out.sides, side)
		out.bytes = max(out.bytes, bytes)
	}
	return out, nil
}

func newBandedOp(op device.Op, t *device.Tape) bandedOp {
	switch o := op.(type) {
	case *device.GroupNorm:
		return newBandedNorm(o)
	case *device.Attention:
		return newBandedAttention(o)
	}
	return newTiled(op, t)
}

// execution is what ops need to compute: a banded run at work.
type execution struct {
	*bandedRun
	ctx     context.Context
	weights *weights // as the op finds them
}

// do runs a job. The error is the context's, or wraps device.ErrFreed.
func (x *execution) do(j *job) error {
	if err := x.ctx.Err(); err != nil {
		return err
	}
	if !x.dev.pool.run(j) {
		return fmt.Errorf("%s: %w", x.dev.name, device.ErrFreed)
	}
	return nil
}

// grid is an array as images of h x w pixels. With up it is enlarged 2x by nearest neighbour, and h and
// w are those of the enlarged image, which may lack the last row or column.
type grid struct {
	array           device.Array
	images, h, w, c int
	up              int // 1 if enlarged
}

// flatGrid is an array as one row of pixels.
func flatGrid(a device.Array) grid {
	g := grid{array: a, images: 1, h: 1}
	if a.Present() {
		g.c = lastDim(a)
		g.w = elems(a) / g.c
	}
	return g
}

// tokensGrid is [images, tokens, c] as one row of pixels for each image.
func tokensGrid(a device.Array) grid {
	return grid{array: a, images: a.Shape[0], h: 1, w: a.Shape[1], c: elems(a) / a.Shape[0] / a.Shape[1]}
}

// pixelsGrid is [images, h, w, c].
func pixelsGrid(a device.Array) grid {
	g := grid{array: a}
	if a.Present() {
		g.images, g.h, g.w, g.c = a.Shape[0], a.Shape[1], a.Shape[2], a.Shape[3]
	}
	return g
}

// window is a piece of one image of a grid; it may reach over its edges.
type window struct {
	image, y, x, h, w int
}

// read fills dst with a window, and with zeros what lies outside of the image. Bound by the memory that
// the page cache is copied from.
func (x *execution) read(g grid, w window, dst []float32) error {
	return x.pieces(g, w, func(row, first, pixels int) error {
		y, left := w.y+row, w.x+first
		dst := dst[(row*w.w+first)*g.c:][:pixels*g.c]
		lo, hi := max(left, 0), min(left+pixels, g.w)
		if y < 0 || y >= g.h || lo >= hi {
			clear(dst)
			return nil
		}
		clear(dst[:(lo-left)*g.c])
		clear(dst[(hi-left)*g.c:])
		dst = dst[(lo-left)*g.c : (hi-left)*g.c]
		from, to := lo>>g.up, (hi-1)>>g.up+1 // of the stored row
		stored := dst[len(dst)-(to-from)*g.c:]
		at := x.at(g, w.image, y>>g.up, from)
		if err := x.spill.read(stored, at); err != nil || g.up == 0 {
			return err
		}
		for i := range hi - lo { // pixel i never lies behind the one it comes from
			copy(dst[i*g.c:][:g.c], stored[((lo+i)>>g.up-from)*g.c:])
		}
		return nil
	})
}

// write puts a window, which lies inside of the image, at its place.
func (x *execution) write(g grid, w window, src []float32) error {
	return x.pieces(g, w, func(row, first, pixels int) error {
		return x.spill.write(src[(row*w.w+first)*g.c:][:pixels*g.c], x.at(g, w.image, w.y+row, w.x+first))
	})
}

// at is the byte offset of a pixel, given as it is stored.
func (x *execution) at(g grid, image, y, px int) int64 {
	pixel := int64(image*((g.h+g.up)>>g.up)+y)*int64((g.w+g.up)>>g.up) + int64(px)
	return x.arrays.Offsets[g.array.ID-1] + 4*pixel*int64(g.c)
}

// pieces does f for pieces of a window's rows of about chunkElems, on all threads, and gives the first
// error.
func (x *execution) pieces(g grid, w window, f func(row, first, pixels int) error) error {
	per := max(1, chunkElems/g.c)
	cols := ceilDiv(w.w, per)
	var once sync.Once
	var failed error
	err := x.do(newJob(w.h*cols, func(_, task int) {
		row, first := task/cols, task%cols*per
		if err := f(row, first, min(per, w.w-first)); err != nil {
			once.Do(func() { failed = err })
		}
	}))
	if err != nil {
		return err
	}
	return failed
}
