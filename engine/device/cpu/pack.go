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
// A panel's columns behind the last output are zero. I4 has a byte for the columns c and c+8 of a row. Behind the panels
// of I8 and I4 are, on a cache line, their scales, float32: [ceil(out/16)][16] of I8, and of I4 [ceil(out/16)][groups][16],
// a group being 64 rows of a panel.

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
	case !keeps(p):
		return 0, parameterError(p, "to be kept as stored, or in another type, I8 or I4 if it is a matrix or a filter", fmt.Sprintf("%v for layout %d", p.Resident, p.Layout))
	}
	rows, row := packedShape(p)
	switch n := int64(rows) * int64(row); kept(p) {
	case tensor.I8:
		return alignLine(n) + int64(rows)*4*kernel.TileCols, nil
	case tensor.I4:
		return alignLine(n/2) + int64(rows)*int64(groups(row))*4*kernel.TileCols, nil
	default:
		return n * int64(kept(p).Size()), nil
	}
}

// keeps tells whether there is a form for the type a parameter is to be kept in.
func keeps(p *device.Param) bool {
	switch p.Resident {
	case tensor.Invalid:
		return true
	case tensor.F32, tensor.F16, tensor.BF16, tensor.I8, tensor.I4:
		return p.Layout == device.Matrix || p.Layout == device.Filter
	}
	return false
}

// groupElems are the values of a panel in a group of I4, but for the last.
const groupElems = device.I4Group * kernel.TileCols

// groups is how many groups of I4 there are in a panel of so many values.
func groups(row int) int { return (row + groupElems - 1) / groupElems }

// quantised is where the values and the scales of a parameter kept as I8 or I4 lie in its memory.
func quantised[T int8 | uint8](p *device.Param, mem []byte) (values []T, scales [][kernel.TileCols]float32) {
	rows, row := packedShape(p)
	n, each := rows*row, 1
	if kept(p) == tensor.I4 {
		n, each = n/2, groups(row)
	}
	return view[T](mem, n), view[[kernel.TileCols]float32](mem[alignLine(int64(n)):], rows*each)
}

// staging is what one thread reads and converts into: a chunk as it is stored, and what becomes of one panel: its values
// widened, narrowed to 16 or 8 bits, and packed.
type staging struct {
	read      []byte
	floats    []float32
	shorts    []uint16
	bytes     []int8
	regroup   []float32
	next, end int // chunks that the thread has taken
}

func (l *loading) newStaging() *staging {
	most := map[tensor.DType]int{} // values of a panel that is kept in another type than it is stored in
	row := 0
	for i := range l.params {
		if p := &l.params[i]; p.Resident != tensor.Invalid && p.Resident != p.DType {
			_, n := packedShape(p)
			most[p.Resident] = max(most[p.Resident], n)
			row = max(row, n)
		}
	}
	words := make([]uint64, l.buffer/8+1) // aligned for every type
	return &staging{
		read:   unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), l.buffer), // of the same array
		floats: make([]float32, row),
		shorts: make([]uint16, max(most[tensor.F16], most[tensor.BF16])),
		bytes:  make([]int8, most[tensor.I8]), regroup: make([]float32, most[tensor.I4]),
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
		if kept(p) != p.DType {
			if err := s.convert(p, mem, src, panel, outputs); err != nil {
				return err
			}
			continue
		}
		if size == 4 {
			kernel.PackU32(view[uint32](mem[panel*row*size:], row), view[uint32](src, n), outputs, in, taps)
		} else {
			kernel.PackU16(view[uint16](mem[panel*row*size:], row), view[uint16](src, n), outputs, in, taps)
		}
	}
	return nil
}

// convert packs a panel of so many outputs in another type than it is stored in.
func (s *staging) convert(p *device.Param, mem, src []byte, panel, outputs int) error {
	_, row := packedShape(p)
	in, taps := p.Shape[1], row/kernel.TileCols/p.Shape[1]
	each, n := in*taps, outputs*in*taps
	w := floats(p.DType, src, s.floats[:n])
	limit := float32(math.MaxFloat32)
	if p.Resident == tensor.F16 {
		limit = 65504
	}
	if most := kernel.AbsMax(w); !(most <= limit) {
		return parameterError(p, fmt.Sprintf("weights of at most %g, to be kept as %v", limit, p.Resident), fmt.Sprint(most))
	}
	switch p.Resident {
	case tensor.F32:
		kernel.PackU32(view[uint32](mem[4*panel*row:], row), bits(w), outputs, in, taps)
	case tensor.F16:
		kernel.NarrowF16(s.shorts[:n], w)
		kernel.PackU16(view[uint16](mem[2*panel*row:], row), s.shorts[:n], outputs, in, taps)
	case tensor.BF16:
		kernel.NarrowBF16(s.shorts[:n], w)
		kernel.PackU16(view[uint16](mem[2*panel*row:], row), s.shorts[:n], outputs, in, taps)
	case tensor.I8:
		values, scales := quantised[int8](p, mem)
		for r := range outputs {
			scales[panel][r] = quantise(s.bytes[r*each:][:each], w[r*each:][:each])
		}
		kernel.PackU8(asBytes(values[panel*row:][:row]), asBytes(s.bytes[:n]), outputs, in, taps)
	case tensor.I4:
		values, scales := quantised[uint8](p, mem)
		packed := s.regroup[:row]
		kernel.PackU32(bits(packed), bits(w), outputs, in, taps)
		for g := range groups(row) {
			part := packed[g*groupElems : min((g+1)*groupElems, row)]
			kernel.QuantizeI4(values[(panel*row+g*groupElems)/2:][:len(part)/2], part, &scales[panel*groups(row)+g])
		}
	}
	return nil
}

// quantise gives the scale of the weights of one output, and the weights as multiples of it.
func quantise(q []int8, w []float32) float32 {
	const smallestNormal = 0x1p-126
	scale := kernel.AbsMax(w) / 127
	if scale < smallestNormal {
		clear(q)
		return 0
	}
	kernel.QuantizeI8(q, w, scale)
	return scale
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

func bits(v []float32) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(v))), len(v)) // the same bits
}
