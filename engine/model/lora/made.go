package lora

import (
	"fmt"
	"io"
	"sync"

	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Source is the weights of a file.
type Source interface {
	nn.Source
	// Section gives the bytes of a tensor, see device.Source.
	Section(name string) (*io.SectionReader, error)
	// Data reads the bytes of a Section at once.
	Data(name string) ([]byte, error)
	// Complete reports whether there is data, and not shapes and types alone.
	Complete() bool
}

// maxMade bounds the values of a difference that is made of factors: more than a layer of any model has.
const maxMade = 1 << 28

// made is a difference that no tensor has, but factors of it: LoHa's and LoKr's. It is made row by row while it is read.
type made struct {
	name  string       // as if it were a tensor
	of    []string     // tensors
	shape tensor.Shape // [out, in] or [out, in, height, width]
	open  func(src Source) (row func(i int, dst []float32), err error)
}

// factor is a part of a product: a matrix as it is, or a b, or with t the sum over i and j of t[i, j, h, w] a[i, o] b[j, n].
type factor struct{ whole, a, b, t string }

// factorOf are the tensors of roles from one on: [a, b, t], with whole before them for LoKr.
func (l *Layer) factorOf(first role, whole bool) (f factor) {
	if whole {
		f.whole = l.tensors[first]
		first++
	}
	f.a, f.b, f.t = l.tensors[first], l.tensors[first+1], l.tensors[first+2]
	return f
}

// names are those of its tensors.
func (f factor) names() (out []string) {
	for _, name := range []string{f.whole, f.a, f.b, f.t} {
		if name != "" {
			out = append(out, name)
		}
	}
	return out
}

// size is [rows, columns, taps] of a factor; taps of a flattened one are among its columns.
func (f factor) size(src Source, named string) (rows, columns, taps int, err error) {
	shape := func(name string) tensor.Shape {
		_, s, _ := src.Info(name)
		return s
	}
	wrong := func(name, expected string) (int, int, int, error) {
		return 0, 0, 0, &Error{Tensor: name, Expected: expected, Got: shape(name).String()}
	}
	switch {
	case f.whole != "" && f.a+f.b+f.t == "":
		s := shape(f.whole)
		if flat(s) {
			return s[0], s[1], 1, nil
		}
		if n, ok := s.Elems(); len(s) != 4 || !ok || n == 0 {
			return wrong(f.whole, "[out, in] or [out, in, height, width]")
		}
		return s[0], s[1], s[2] * s[3], nil
	case f.whole != "" || f.a == "" || f.b == "":
		return 0, 0, 0, &Error{Tensor: named, Expected: "both factors, each whole or as two matrices", Got: "others"}
	}
	a, b := shape(f.a), shape(f.b)
	if !flat(a) {
		return wrong(f.a, "a matrix")
	}
	if !flat(b) {
		return wrong(f.b, "a matrix")
	}
	if f.t == "" {
		if b[0] != a[1] {
			return wrong(f.b, fmt.Sprintf("[%d, any]", a[1]))
		}
		return a[0], b[1], 1, nil
	}
	t := shape(f.t)
	if n, ok := t.Elems(); len(t) != 4 || !ok || n == 0 || t[0] != a[0] || t[1] != b[0] {
		return wrong(f.t, fmt.Sprintf("[%d, %d, height, width]", a[0], b[0]))
	}
	return a[1], b[1], t[2] * t[3], nil
}

// open reads a factor; rows are of columns * taps values, column by column.
func (f factor) open(src Source) (row func(i int, dst []float32), err error) {
	read := func(name string) (v []float32, s tensor.Shape) {
		if name == "" || err != nil {
			return nil, nil
		}
		var d tensor.DType
		d, s, _ = src.Info(name)
		var data []byte
		if data, err = src.Data(name); err == nil {
			v, err = tensor.Tensor{DType: d, Shape: s, Data: data}.Float32s()
		}
		return v, s
	}
	whole, _ := read(f.whole)
	a, as := read(f.a)
	b, bs := read(f.b)
	t, ts := read(f.t)
	switch {
	case err != nil:
		return nil, err
	case f.whole != "":
		return func(i int, dst []float32) { copy(dst, whole[i*len(dst):][:len(dst)]) }, nil
	case f.t == "":
		return func(i int, dst []float32) {
			clear(dst)
			for r := range as[1] {
				for n := range dst {
					dst[n] += a[i*as[1]+r] * b[r*len(dst)+n]
				}
			}
		}, nil
	}
	taps := ts[2] * ts[3]
	return func(o int, dst []float32) {
		clear(dst)
		for i := range as[0] {
			for j := range bs[0] {
				core, by := t[(i*bs[0]+j)*taps:][:taps], a[i*as[1]+o]
				for n := range bs[1] {
					for tap, v := range core {
						dst[n*taps+tap] += by * v * b[j*bs[1]+n]
					}
				}
			}
		}
	}, nil
}

// newMade is the difference of a layer of LoHa or LoKr. The error is an Error.
func newMade(src Source, l *Layer) (*made, error) {
	kron := l.any(kronFirst, kronSecond+3)
	first, second := l.factorOf(hadaFirst, false), l.factorOf(hadaSecond, false)
	if kron {
		first, second = l.factorOf(kronFirst, true), l.factorOf(kronSecond, true)
	}
	r1, c1, t1, err := first.size(src, l.Named)
	if err != nil {
		return nil, err
	}
	r2, c2, t2, err := second.size(src, l.Named)
	if err != nil {
		return nil, err
	}
	out, in, taps := r2, c2, t2
	if kron {
		out, in = r1*r2, c1*c2
	}
	if !kron && (r1 != r2 || c1 != c2 || t1 != t2) || kron && t1 != 1 {
		return nil, &Error{Tensor: l.Named, Expected: "factors of one size", Got: fmt.Sprintf("%d x %d x %d and %d x %d x %d", r1, c1, t1, r2, c2, t2)}
	}
	flattened := second.whole == "" && second.t == ""
	if flattened && square(l.Key) && in%9 == 0 {
		in, taps = in/9, 9
	}
	if r1 > maxMade || r2 > maxMade || c1 > maxMade || c2 > maxMade || out > maxMade || in > maxMade || out*in > maxMade || out*in*taps > maxMade {
		return nil, &Error{Tensor: l.Named, Expected: fmt.Sprintf("a difference of at most %d values", maxMade), Got: "one of more"}
	}
	m := &made{name: l.Named + ".(made)", of: append(first.names(), second.names()...), shape: tensor.Shape{out, in}}
	if taps > 1 {
		side := 1
		for side*side < taps {
			side++
		}
		if side*side != taps {
			return nil, &Error{Tensor: l.Named, Expected: "filters as high as wide", Got: fmt.Sprintf("%d places", taps)}
		}
		m.shape = append(m.shape, side, side)
	}
	m.open = func(src Source) (func(int, []float32), error) {
		one, err := first.open(src)
		if err != nil {
			return nil, err
		}
		two, err := second.open(src)
		if err != nil {
			return nil, err
		}
		if !kron {
			other := make([]float32, in*taps)
			return func(i int, dst []float32) {
				one(i, dst)
				two(i, other)
				for n := range dst {
					dst[n] *= other[n]
				}
			}, nil
		}
		left, right := make([]float32, c1), make([]float32, in*taps/c1)
		return func(i int, dst []float32) {
			one(i/r2, left)
			two(i%r2, right)
			for n, by := range left {
				for k, v := range right {
					dst[n*len(right)+k] = by * v
				}
			}
		}, nil
	}
	return m, nil
}

// rows reads a difference as if it were a tensor of F32.
type rows struct {
	mu    sync.Mutex
	width int
	row   func(i int, dst []float32)
	at    int // of what is in last; -1 at first
	last  []byte
	one   []float32
}

// section is a difference's bytes.
func (m *made) section(src Source) (*io.SectionReader, error) {
	row, err := m.open(src)
	if err != nil {
		return nil, err
	}
	n, _ := m.shape.Elems()
	width := n / m.shape[0]
	r := &rows{width: width, row: row, at: -1, one: make([]float32, width)}
	return io.NewSectionReader(r, 0, int64(4*n)), nil
}

// ReadAt implements io.ReaderAt within the difference.
func (r *rows) ReadAt(p []byte, off int64) (n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wide := int64(4 * r.width)
	for n < len(p) {
		if i := int((off + int64(n)) / wide); i != r.at {
			r.row(i, r.one)
			r.at, r.last = i, tensor.FromF32(r.one, r.width).Data
		}
		n += copy(p[n:], r.last[(off+int64(n))%wide:])
	}
	return n, nil
}
