package cpu

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// How parameters are packed:
//
//	Vector [n]                 n of float32
//	Matrix [out, in]           panels [ceil(out/16)][in][16] in the stored type
//	Filter [out, in, kh, kw]   panels [ceil(out/16)][kh*kw][in][16] in the stored type
//	Table  [rows, dim]         as stored
//
// A panel's columns behind the last output are zero.

// packedShape gives the rows of a packed parameter and their length in elements.
func packedShape(p *device.Param) (rows, row int) {
	switch p.Layout {
	case device.Vector:
		return 1, p.Shape[0]
	case device.Table:
		return p.Shape[0], p.Shape[1]
	}
	row = kernel.TileCols
	for _, n := range p.Shape[1:] {
		row *= n
	}
	return panels(p.Shape[0]), row
}

// panels is how many panels hold n outputs.
func panels(n int) int { return (n + kernel.TileCols - 1) / kernel.TileCols }

// packedBytes is the size of a packed parameter; the error is a device.FieldError.
func packedBytes(p *device.Param) (int64, error) {
	dims := map[device.Layout]int{device.Vector: 1, device.Matrix: 2, device.Table: 2, device.Filter: 4}[p.Layout]
	elems, ok := p.Shape.Elems()
	switch {
	case len(p.Shape) != dims:
		return 0, parameterError(p, "a parameter with a known layout", fmt.Sprintf("layout %d of shape %v", p.Layout, p.Shape))
	case !p.DType.IsFloat():
		return 0, parameterError(p, "F32, F16 or BF16", p.DType.String())
	case !ok || elems == 0 || elems > math.MaxInt/(8*kernel.TileCols):
		return 0, parameterError(p, "a shape with elements that fit in memory", p.Shape.String())
	}
	rows, row := packedShape(p)
	size := p.DType.Size()
	if p.Layout == device.Vector {
		size = 4
	}
	return int64(rows) * int64(row) * int64(size), nil
}

// packJob packs the stored bytes of p, which have the right length, at the start of mem. A task is
// a panel, or a row of a table. Bound by the instructions for an element, some 5 cycles; cutting the
// inputs into blocks for the cache gained nothing.
func packJob(p *device.Param, mem, data []byte) *job {
	rows, row := packedShape(p)
	switch {
	case p.Layout == device.Vector:
		return newJob(1, func(_, _ int) { _ = tensor.Widen(view[float32](mem, row), p.DType, data) }) // type and length are checked
	case p.DType == tensor.F32:
		return packRows(p, view[uint32](mem, rows*row), data, rows)
	}
	return packRows(p, view[uint16](mem, rows*row), data, rows)
}

func packRows[T uint16 | uint32](p *device.Param, dst []T, data []byte, rows int) *job {
	row, size := len(dst)/rows, p.DType.Size()
	if p.Layout == device.Table {
		return newJob(rows, func(_, r int) {
			for i := range row {
				dst[r*row+i] = stored[T](data[(r*row+i)*size:])
			}
		})
	}
	out, in, taps := p.Shape[0], p.Shape[1], row/kernel.TileCols/p.Shape[1]
	return newJob(rows, func(_, panel int) {
		dst, first := dst[panel*row:][:row], panel*kernel.TileCols
		for c := range min(kernel.TileCols, out-first) {
			src := data[(first+c)*in*taps*size:]
			for i := range in {
				for t := range taps {
					dst[(t*in+i)*kernel.TileCols+c] = stored[T](src)
					src = src[size:]
				}
			}
		}
	})
}

// stored reads the first element of little-endian data.
func stored[T uint16 | uint32](data []byte) T {
	if unsafe.Sizeof(T(0)) == 2 {
		return T(binary.LittleEndian.Uint16(data))
	}
	return T(binary.LittleEndian.Uint32(data))
}
