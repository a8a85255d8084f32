package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// Shape is the extent of each dimension, outermost first.
type Shape []int

// Elems is the number of elements, 1 for a scalar. ok is false when a dimension is
// negative or the product does not fit in an int.
func (s Shape) Elems() (n int, ok bool) {
	n = 1
	for _, d := range s {
		if d < 0 || (d > 0 && n > math.MaxInt/d) {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// Equal reports whether both shapes have the same dimensions.
func (s Shape) Equal(o Shape) bool {
	if len(s) != len(o) {
		return false
	}
	for i := range s {
		if s[i] != o[i] {
			return false
		}
	}
	return true
}

// String formats as [2, 77, 768].
func (s Shape) String() string {
	parts := make([]string, len(s))
	for i, d := range s {
		parts[i] = fmt.Sprint(d)
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// Tensor is dense row-major data on the host, raw little-endian as on disk and on the wire.
type Tensor struct {
	DType DType
	Shape Shape
	Data  []byte
}

// FromF32 copies v into a new F32 tensor. It panics if the lengths disagree: that is a
// programming error, data from outside goes through Validate.
func FromF32(v []float32, shape ...int) Tensor {
	if n, ok := Shape(shape).Elems(); !ok || n != len(v) {
		panic(fmt.Sprintf("tensor: %d values for shape %v", len(v), Shape(shape)))
	}
	data := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(x))
	}
	return Tensor{DType: F32, Shape: Shape(shape), Data: data}
}

// Validate reports whether the data has the bytes its type and shape ask for.
func (t Tensor) Validate() error {
	n, ok := t.Shape.Elems()
	if !ok || t.DType.Size() == 0 || n > math.MaxInt/t.DType.Size() {
		return fmt.Errorf("tensor: %v of shape %v has no size", t.DType, t.Shape)
	}
	if want := n * t.DType.Size(); want != len(t.Data) {
		return fmt.Errorf("tensor: %v of shape %v needs %d bytes, got %d", t.DType, t.Shape, want, len(t.Data))
	}
	return nil
}

// Float32s returns the elements widened to float32 in a new slice. The type must be a
// floating point format.
func (t Tensor) Float32s() ([]float32, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	n, _ := t.Shape.Elems()
	out := make([]float32, n)
	if err := Widen(out, t.DType, t.Data); err != nil {
		return nil, err
	}
	return out, nil
}
