package device

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// Slice is consecutive rows of a stored tensor. A row is what belongs to one index of a parameter's first dimension.
type Slice struct {
	Name           string // as in the file
	FirstRow, Rows int
	// Transposed is that the tensor, a Matrix or a Table, is stored with its dimensions exchanged, so that a row is a column of it. Each
	// is read by itself, for some hundred rows at once.
	Transposed bool
	// Scale multiplies every value, in float32; the product is rounded to nearest even. 0 is none.
	Scale float32
}

// Tensor is a tensor as files have it.
type Tensor struct {
	Name  string
	DType tensor.DType
	Shape tensor.Shape
}

// Tensors lists what the parameters are read from, each tensor once, in the order of their first use. One that Slices are of
// has as many rows as the last of them ends at.
func (m *Manifest) Tensors() []Tensor {
	all := make([]Tensor, 0, len(m.Params))
	index := map[string]int{}
	add := func(name string, d tensor.DType, shape tensor.Shape, growing int) {
		i, there := index[name]
		if !there {
			index[name] = len(all)
			all = append(all, Tensor{name, d, shape})
		} else if s := all[i].Shape; growing < len(s) && growing < len(shape) {
			s[growing] = max(s[growing], shape[growing])
		}
	}
	for i := range m.Params {
		p := &m.Params[i]
		if p.From == nil {
			add(p.Name, p.DType, slices.Clone(p.Shape), 0)
		}
		for _, s := range p.From {
			shape, rows := slices.Clone(p.Shape), 0
			if s.Transposed {
				shape, rows = tensor.Shape{p.Shape[1], 0}, 1
			}
			shape[rows] = s.FirstRow + s.Rows
			add(s.Name, p.DType, shape, rows)
		}
	}
	return all
}

// Section gives the bytes of a parameter that was planned as its Shape and DType say them, as Source.Section does: those of the
// tensor of its name, or the rows of its Slices one behind the other, put together as they are read. The error is the source's,
// or a FieldError if the stored bytes are not those of the parameter.
func (p *Param) Section(src Source) (*io.SectionReader, error) {
	elems, _ := p.Shape.Elems()
	bytes := int64(elems) * int64(p.DType.Size())
	refuse := func(expected, got string) error { return &FieldError{"parameter " + p.Name, expected, got} }
	if p.From == nil {
		section, err := src.Section(p.Name)
		if err != nil {
			return nil, fmt.Errorf("parameter %s: %w", p.Name, err)
		}
		if section.Size() != bytes {
			return nil, refuse(fmt.Sprintf("%d bytes of %v %v", bytes, p.DType, p.Shape), fmt.Sprintf("%d bytes", section.Size()))
		}
		return section, nil
	}
	row, rows := elems/p.Shape[0], 0
	parts := &assembly{}
	for _, s := range p.From {
		stored, err := src.Section(s.Name)
		if err != nil {
			return nil, fmt.Errorf("parameter %s: %w", p.Name, err)
		}
		part := part{Slice: s, stored: stored, dtype: p.DType, row: row, all: int(stored.Size() / int64(row*p.DType.Size()))}
		part.begin, part.end = part.bytes(rows), part.bytes(rows+s.Rows)
		switch scale := float64(s.Scale); {
		case s.FirstRow < 0 || s.Rows < 1 || s.Transposed && p.Layout != Matrix && p.Layout != Table || math.IsNaN(scale) || math.IsInf(scale, 0):
			return nil, refuse("rows of a tensor, transposed only if it is a matrix or a table, and a finite scale", fmt.Sprintf("%+v", s))
		case part.bytes(part.all) != stored.Size() || part.all < s.FirstRow+s.Rows:
			return nil, refuse(fmt.Sprintf("at least %d rows of %d values of %v in %s", s.FirstRow+s.Rows, row, p.DType, s.Name), fmt.Sprintf("%d bytes", stored.Size()))
		}
		rows += s.Rows
		parts.slices = append(parts.slices, part)
	}
	if rows != p.Shape[0] {
		return nil, refuse(fmt.Sprintf("slices with %d rows", p.Shape[0]), fmt.Sprint(rows))
	}
	return io.NewSectionReader(parts, 0, bytes), nil
}

// assembly is the bytes of a parameter that is made of several stored tensors.
type assembly struct{ slices []part }

// part is a slice with its place in the parameter, in bytes.
type part struct {
	Slice
	stored     *io.SectionReader
	dtype      tensor.DType
	row, all   int // values of a row, rows of the stored tensor
	begin, end int64
}

func (p *part) bytes(rows int) int64 { return int64(rows) * int64(p.row) * int64(p.dtype.Size()) }

// ReadAt implements io.ReaderAt. Of what is transposed or scaled whole values are read. Errors are the source's.
func (a *assembly) ReadAt(data []byte, off int64) (n int, err error) {
	for i := range a.slices {
		if p, at := &a.slices[i], off+int64(n); at < p.end && n < len(data) {
			k := int(min(int64(len(data)-n), p.end-at))
			if err := p.read(data[n:][:k], at-p.begin); err != nil {
				return n, err
			}
			n += k
		}
	}
	if n < len(data) {
		return n, io.EOF
	}
	return n, nil
}

func (p *part) read(data []byte, at int64) error {
	if !p.Transposed && p.Scale == 0 {
		_, err := p.stored.ReadAt(data, p.bytes(p.FirstRow)+at)
		return err
	}
	size := p.dtype.Size()
	if at%int64(size) != 0 || len(data)%size != 0 {
		return fmt.Errorf("%d bytes at %d of a tensor that is not read as it is stored: expected whole values of %v", len(data), at, p.dtype)
	}
	var err error
	if p.Transposed {
		err = p.gather(data, int(at)/size, len(data)/size)
	} else {
		_, err = p.stored.ReadAt(data, p.bytes(p.FirstRow)+at)
	}
	if err != nil || p.Scale == 0 {
		return err
	}
	var values [512]float32
	for chunk := range slices.Chunk(data, len(values)*size) {
		v := values[:len(chunk)/size]
		if err := tensor.Widen(v, p.dtype, chunk); err != nil {
			return err
		}
		for i := range v {
			v[i] *= p.Scale
		}
		if err := tensor.Narrow(chunk, p.dtype, v); err != nil {
			return err
		}
	}
	return nil
}

// gather reads n values from the first on of a transposed slice.
func (p *part) gather(data []byte, first, n int) error {
	size, last := p.dtype.Size(), first+n-1
	column := make([]byte, (last/p.row-first/p.row+1)*size)
	for c := range p.row {
		from, to := first/p.row, last/p.row+1 // the rows whose value of this column is wanted
		if c < first%p.row {
			from++
		}
		if c > last%p.row {
			to--
		}
		if from >= to {
			continue
		}
		values := column[:(to-from)*size]
		if _, err := p.stored.ReadAt(values, int64(c*p.all+p.FirstRow+from)*int64(size)); err != nil {
			return err
		}
		for r := from; r < to; r++ {
			copy(data[(r*p.row+c-first)*size:], values[(r-from)*size:][:size])
		}
	}
	return nil
}
