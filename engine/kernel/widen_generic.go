package kernel

import "math"

func widenF16Generic(dst []float32, src []uint16) {
	for i, h := range src {
		dst[i] = halfToFloat(h)
	}
}

func widenBF16Generic(dst []float32, src []uint16) {
	for i, h := range src {
		dst[i] = math.Float32frombits(uint32(h) << 16)
	}
}

func halfToFloat(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	magnitude := uint32(h&0x7fff) << 13
	switch exponent := h & 0x7c00; {
	case exponent == 0x7c00 && h&0x3ff != 0: // NaN, made quiet
		return math.Float32frombits(sign | magnitude | 0x7fc00000)
	case exponent == 0x7c00:
		return math.Float32frombits(sign | 0x7f800000)
	case exponent == 0: // zero or denormal: a multiple of 2^-24
		return math.Float32frombits(sign | math.Float32bits(float32(h&0x3ff)*0x1p-24))
	}
	return math.Float32frombits(sign | (magnitude + (127-15)<<23))
}

func widenI4Generic(dst []float32, src []uint8, scales *[TileCols]float32) {
	for len(dst) > 0 {
		for c, q := range src[:TileCols/2] {
			dst[c] = float32(int(q&15)-8) * scales[c]
			dst[c+TileCols/2] = float32(int(q>>4)-8) * scales[c+TileCols/2]
		}
		dst, src = dst[TileCols:], src[TileCols/2:]
	}
}

func widenI8Generic(dst []float32, src []int8, scales *[TileCols]float32) {
	for len(dst) > 0 {
		for c, scale := range scales {
			dst[c] = float32(src[c]) * scale
		}
		dst, src = dst[TileCols:], src[TileCols:]
	}
}
