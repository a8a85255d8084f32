package cpu

import (
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
//	Matrix [out, in]           panels [ceil(out/16)][in][16] in the type they are kept in
//	Filter [out, in, kh, kw]   panels [ceil(out/16)][kh*kw][in][16] in the type they are kept in
//	Table  [rows, dim]         as stored
//
// A panel's columns behind the last output are zero. Behind the panels of I8 are, on a cache line, their scales
// [ceil(out/16)][16] of float32.

// kept is the type a parameter has in memory.
func kept(p *device.Param) tensor.DType {
	switch {
	case p.Layout == device.Vector:
		return tensor.F32
	case p.Resident != tensor.Invalid:
		return p.Resident
	}
	return p.DType
}

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

// storedRow is the bytes that a packed row is made from; a last panel may have fewer.
func storedRow(p *device.Param) int64 {
	_, row := packedShape(p)
	return int64(row) * int64(p.DType.Size())
}

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
	case p.Resident != tensor.Invalid && (p.Resident != tensor.I8 || p.Layout == device.Vector || p.Layout == device.Table):
		return 0, parameterError(p, "to be kept as stored, or as I8 if it is a matrix or a filter", fmt.Sprintf("%v for layout %d", p.Resident, p.Layout))
	}
	rows, row := packedShape(p)
	if kept(p) == tensor.I8 {
		return alignLine(int64(rows)*int64(row)) + int64(rows)*4*kernel.TileCols, nil
	}
	return int64(rows) * int64(row) * int64(kept(p).Size()), nil
}

// quantised is where the values and the scales of a parameter kept as I8 lie in its memory.
func quantised(p *device.Param, mem []byte) (values []int8, scales [][kernel.TileCols]float32) {
	rows, row := packedShape(p)
	return view[int8](mem, rows*row), view[[kernel.TileCols]float32](mem[alignLine(int64(rows*row)):], rows)
}

// staging is what one thread reads and quantises into: a chunk as it is stored, the float32 values of an
// output, the int8 values of a panel's outputs.
type staging struct {
	read   []byte
	floats []float32
	bytes  []int8
}

func (l *loading) newStaging() *staging {
	row := 0
	for i := range l.params {
		if p := &l.params[i]; p.Resident == tensor.I8 {
			_, n := packedShape(p)
			row = max(row, n)
		}
	}
	words := make([]uint64, l.buffer/8+1) // aligned for every type
	return &staging{
		read:   unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), l.buffer), // of the same array
		floats: make([]float32, row/kernel.TileCols),
		bytes:  make([]int8, row),
	}
}

// packPanels packs the stored bytes of whole panels, the first of them being panel first of p. The memory of
// amd64 and arm64 has numbers as files have them, little-endian; what is read is aligned, like an arena.
func packPanels(p *device.Param, mem, data []byte, first int, s *staging) error {
	_, row := packedShape(p)
	in, taps, size := p.Shape[1], row/kernel.TileCols/p.Shape[1], p.DType.Size()
	for panel := first; len(data) > 0; panel++ {
		outputs := min(kernel.TileCols, p.Shape[0]-panel*kernel.TileCols)
		n := outputs * in * taps
		src := data[:n*size]
		data = data[n*size:]
		switch kept(p) {
		case tensor.I8:
			values, scales := quantised(p, mem)
			for r := range outputs {
				scale, err := s.quantise(p, src[r*in*taps*size:], r*in*taps, in*taps)
				if err != nil {
					return err
				}
				scales[panel][r] = scale
			}
			kernel.PackU8(asBytes(values[panel*row:][:row]), asBytes(s.bytes[:n]), outputs, in, taps)
		case tensor.F32:
			kernel.PackU32(view[uint32](mem[panel*row*size:], row), view[uint32](src, n), outputs, in, taps)
		default:
			kernel.PackU16(view[uint16](mem[panel*row*size:], row), view[uint16](src, n), outputs, in, taps)
		}
	}
	return nil
}

// quantise writes the n weights of one output to s.bytes from at on and returns their scale.
func (s *staging) quantise(p *device.Param, src []byte, at, n int) (float32, error) {
	w, q := floats(p.DType, src[:n*p.DType.Size()], s.floats[:n]), s.bytes[at:][:n]
	const smallestNormal = 0x1p-126
	scale := kernel.AbsMax(w) / 127
	switch {
	case !(scale <= math.MaxFloat32):
		return 0, parameterError(p, "finite weights, to be kept as I8", fmt.Sprint(kernel.AbsMax(w)))
	case scale < smallestNormal:
		clear(q)
		return 0, nil
	}
	kernel.QuantizeI8(q, w, scale)
	return scale, nil
}

// floats is stored values as float32: where they are if they are stored so, else in buf.
func floats(stored tensor.DType, data []byte, buf []float32) []float32 {
	switch stored {
	case tensor.F16:
		kernel.WidenF16(buf, view[uint16](data, len(buf)))
	case tensor.BF16:
		kernel.WidenBF16(buf, view[uint16](data, len(buf)))
	default:
		return view[float32](data, len(buf))
	}
	return buf
}

func asBytes(v []int8) []uint8 {
	return unsafe.Slice((*uint8)(unsafe.Pointer(unsafe.SliceData(v))), len(v)) // the same bits
}
