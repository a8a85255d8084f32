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

// Narrow is the inverse of Widen: it rounds src to nearest even, in magnitudes beyond the type's largest to infinity.
func Narrow(data []byte, d DType, src []float32) error {
	if len(data) != len(src)*d.Size() {
		return fmt.Errorf("tensor: %d bytes of %v for %d elements", len(data), d, len(src))
	}
	switch d {
	case F32:
		for i, v := range src {
			binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
		}
	case F16:
		for i, v := range src {
			binary.LittleEndian.PutUint16(data[2*i:], F32ToF16(v))
		}
	case BF16:
		for i, v := range src {
			binary.LittleEndian.PutUint16(data[2*i:], F32ToBF16(v))
		}
	default:
		return fmt.Errorf("tensor: %v is not a floating point type (want F32, F16 or BF16)", d)
	}
	return nil
}

// F32ToBF16 rounds to the nearest bfloat16, ties to even. A NaN stays one, quiet.
func F32ToBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// F32ToF16 rounds to the nearest IEEE 754 binary16, ties to even, subnormals included. A NaN stays one, quiet.
func F32ToF16(v float32) uint16 {
	bits := math.Float32bits(v)
	sign, magnitude := uint16(bits>>16&0x8000), bits&0x7fffffff
	switch {
	case v != v:
		return sign | 0x7e00
	case magnitude >= 0x477ff000: // 65520, half way to what would follow the largest
		return sign | 0x7c00
	case magnitude < 0x38800000: // below 2^-14: a sum with 1/2 is a multiple of 2^-24
		const half = 0x3f000000
		return sign | uint16(math.Float32bits(math.Float32frombits(magnitude)+0.5)-half)
	}
	magnitude -= (127 - 15) << 23
	return sign | uint16((magnitude+0xfff+magnitude>>13&1)>>13)
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
