// Package tensor holds host tensors: element types, shapes and raw little-endian
// data, with the conversions between the floating point formats models are stored in.
// It imports nothing of this project and is the one room of the engine that the
// orchestrator may import.
package tensor

import "fmt"

// DType is the element type of stored data.
type DType uint8

// The element types that model files and the wire may carry.
const (
	Invalid DType = iota
	F32
	F16
	BF16
	I64
	I32
	U8
	I8
	I4 // half a byte, so that its Size is 0: devices keep weights in it, files and the wire do not have it
)

var dtypes = [...]struct {
	name string
	size int
}{
	Invalid: {"INVALID", 0},
	F32:     {"F32", 4},
	F16:     {"F16", 2},
	BF16:    {"BF16", 2},
	I64:     {"I64", 8},
	I32:     {"I32", 4},
	U8:      {"U8", 1},
	I8:      {"I8", 1},
	I4:      {"I4", 0},
}

// String gives the name safetensors uses for the type.
func (d DType) String() string {
	if int(d) < len(dtypes) {
		return dtypes[d].name
	}
	return fmt.Sprintf("DType(%d)", uint8(d))
}

// Size is the bytes of one element, 0 for Invalid and I4.
func (d DType) Size() int {
	if int(d) < len(dtypes) {
		return dtypes[d].size
	}
	return 0
}

// IsFloat reports whether the type is one of the floating point formats.
func (d DType) IsFloat() bool { return d == F32 || d == F16 || d == BF16 }

// ParseDType is the inverse of String; ok is false for a type this project cannot read.
func ParseDType(name string) (d DType, ok bool) {
	for i, t := range dtypes {
		if t.size > 0 && t.name == name {
			return DType(i), true
		}
	}
	return Invalid, false
}
