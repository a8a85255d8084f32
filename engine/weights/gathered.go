package weights

import (
	"io"
	"math"
	"slices"
	"sync"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights/torchfile"
)

// gathered is a tensor of torch whose bytes do not lie in the file as they are read: transposed or expanded, with the highest
// byte first, or compressed. Its bytes are those of the tensor, row-major and little-endian.
type gathered struct {
	file    *file
	name    string
	source  io.ReaderAt // of the storage
	first   int64       // byte of the first value there
	item    int64       // bytes of a value
	shape   tensor.Shape
	strides []int64
	swapped bool
	stored  bool // source is the file
}

func newGathered(f *file, t *torchfile.Tensor, swapped bool) *gathered {
	g := &gathered{
		file: f, name: t.Name, source: t.Data.Memory, first: t.Data.Offset,
		item: bitsPerElement(t.DType) / 8, shape: t.Shape, strides: t.Strides, swapped: swapped,
	}
	if g.source == nil {
		g.source, g.stored = f.data, true
	}
	return g
}

// Values are gathered in so many, out of windows of so many bytes; a gap in a window is read over.
const (
	gatherValues = 64 << 10
	gatherWindow = 1 << 20
	gatherGap    = 4 << 10
)

// gathering is the memory of one ReadAt.
type gathering struct {
	values  [8 * gatherValues]byte
	offsets [gatherValues]int64 // in the storage, in values
	order   [gatherValues]int32 // of the values by their offsets
	window  [gatherWindow]byte
}

var gatherings = sync.Pool{New: func() any { return new(gathering) }}

// ReadAt implements io.ReaderAt. Errors are an Error.
func (g *gathered) ReadAt(p []byte, off int64) (int, error) {
	if g.stored {
		if err := g.file.verify(g.first); err != nil {
			return 0, g.fault(off, err)
		}
	}
	m := gatherings.Get().(*gathering)
	defer gatherings.Put(m)
	for done := 0; done < len(p); {
		at := off + int64(done)
		inside := at % g.item
		n := min((inside+int64(len(p)-done)+g.item-1)/g.item, gatherValues)
		if err := g.gather(m, at/g.item, int(n)); err != nil {
			return done, g.fault(at, &Error{Expected: "the bytes of " + g.shape.String(), Got: reason(err), Err: err})
		}
		done += copy(p[done:], m.values[inside:n*g.item])
	}
	if prints := g.file.prints; prints != nil && !prints.check(g.place(), off, p) {
		return len(p), g.fault(off, changed(len(p), off))
	}
	return len(p), nil
}

// gather fills m.values with n values of the tensor from the first on.
func (g *gathered) gather(m *gathering, first int64, n int) error {
	low, high := g.locate(m.offsets[:n], first)
	if (high-low+1)*g.item <= gatherWindow {
		return g.read(m, low, high, n, func(i int) int { return i })
	}
	order := m.order[:n]
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return int(min(1, max(-1, m.offsets[a]-m.offsets[b]))) })
	for len(order) > 0 {
		low, last := m.offsets[order[0]], m.offsets[order[0]]
		k := 1
		for ; k < len(order); k++ {
			next := m.offsets[order[k]]
			if (next-last)*g.item > gatherGap || (next-low+1)*g.item > gatherWindow {
				break
			}
			last = next
		}
		part := order[:k]
		order = order[k:]
		if err := g.read(m, low, last, k, func(i int) int { return int(part[i]) }); err != nil {
			return err
		}
	}
	return nil
}

// locate finds the values from the first on in the storage, and between which they all are.
func (g *gathered) locate(offsets []int64, first int64) (low, high int64) {
	index, at := make([]int64, len(g.shape)), int64(0)
	for d := len(g.shape) - 1; d >= 0; d-- {
		index[d] = first % int64(g.shape[d])
		first /= int64(g.shape[d])
		at += index[d] * g.strides[d]
	}
	low, high = math.MaxInt64, 0
	for i := range offsets {
		offsets[i] = at
		low, high = min(low, at), max(high, at)
		for d := len(index) - 1; d >= 0; d-- {
			index[d]++
			at += g.strides[d]
			if index[d] < int64(g.shape[d]) {
				break
			}
			at -= index[d] * g.strides[d]
			index[d] = 0
		}
	}
	return low, high
}

// read reads the storage from value low to value high, and takes n values out of it: the i-th of them is number which(i).
func (g *gathered) read(m *gathering, low, high int64, n int, which func(i int) int) error {
	window := m.window[:(high-low+1)*g.item]
	if k, err := g.source.ReadAt(window, g.first+low*g.item); k < len(window) {
		return err
	}
	for i := range n {
		to := which(i)
		from, value := (m.offsets[to]-low)*g.item, m.values[int64(to)*g.item:][:g.item]
		copy(value, window[from:from+g.item])
		if g.swapped {
			slices.Reverse(value)
		}
	}
	return nil
}

func (g *gathered) fault(_ int64, broken *Error) *Error {
	broken.File, broken.Tensor = g.file.path, g.name
	return broken
}

// place is what Prints know the bytes by.
func (g *gathered) place() string { return g.file.path + "\x00" + g.name }
