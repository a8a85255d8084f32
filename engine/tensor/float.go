package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Widen converts len(dst) elements of little-endian data of a floating point type to float32.
func Widen(dst []float32, d DType, data []byte) error {
	if len(data) != len(dst)*d.Size() {
		return fmt.Errorf("tensor: %d bytes of %v for %d elements", len(data), d, len(dst))
	}
	switch d {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		}
	case F16:
		for i := range dst {
			dst[i] = F16ToF32(binary.LittleEndian.Uint16(data[2*i:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = BF16ToF32(binary.LittleEndian.Uint16(data[2*i:]))
		}
	default:
		return fmt.Errorf("tensor: %v is not a floating point type (want F32, F16 or BF16)", d)
	}
	return nil
}

// BF16ToF32 widens a bfloat16: the upper half of a float32.
func BF16ToF32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// F16ToF32 widens an IEEE 754 binary16, exactly, subnormals included.
func F16ToF32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp := uint32(h>>10) & 0x1f
	frac := uint32(h & 0x3ff)
	switch exp {
	case 0: // zero and subnormals: frac * 2^-24
		f := float32(frac) * (1.0 / (1 << 24))
		return math.Float32frombits(sign | math.Float32bits(f))
	case 0x1f: // infinity and NaN
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}
