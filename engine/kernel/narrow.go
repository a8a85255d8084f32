package kernel

import "math"

// NarrowF16 converts float32 to IEEE 754 half precision, rounded to nearest even; from 65520 on to infinity.
// What bounds it: some ten operations for an element. Only loading uses it.
func NarrowF16(dst []uint16, src []float32) {
	for i, v := range src[:len(dst)] {
		dst[i] = floatToHalf(v)
	}
}

func floatToHalf(v float32) uint16 {
	bits := math.Float32bits(v)
	sign, magnitude := uint16(bits>>16&0x8000), bits&0x7fffffff
	switch {
	case magnitude > 0x7f800000: // NaN
		return sign | 0x7e00
	case magnitude >= 0x477ff000: // 65520
		return sign | 0x7c00
	case magnitude < 0x38800000: // below 2^-14: a multiple of 2^-24, which adding 1/2 rounds to
		const half = 0x3f000000
		return sign | uint16(math.Float32bits(math.Float32frombits(magnitude)+0.5)-half)
	}
	magnitude -= (127 - 15) << 23
	return sign | uint16((magnitude+0xfff+magnitude>>13&1)>>13)
}

// NarrowBF16 converts finite float32 to bfloat16, rounded to nearest even.
// What bounds it: some five operations for an element. Only loading uses it.
func NarrowBF16(dst []uint16, src []float32) {
	for i, v := range src[:len(dst)] {
		bits := math.Float32bits(v)
		dst[i] = uint16((bits + 0x7fff + bits>>16&1) >> 16)
	}
}
