package kernel

import "math"

// QuantizeI4 rounds rows of 16 columns to integers from -7 to 7 with a scale for each column, in the form WidenI4 reads:
// scales[c] is max|src[16*r+c]|/7, the integers are the quotients, rounded to nearest even. A column whose scale would be
// below the smallest normal float32 is zero. Values must be finite.
// What bounds it: some ten operations for an element. Only loading uses it.
func QuantizeI4(dst []uint8, src []float32, scales *[TileCols]float32) {
	const smallestNormal, limit = 0x1p-126, 7
	*scales = [TileCols]float32{}
	for at := 0; at < len(src); at += TileCols {
		for c, v := range src[at:][:TileCols] {
			scales[c] = max(scales[c], math.Float32frombits(math.Float32bits(v)&0x7fffffff))
		}
	}
	for c := range scales {
		if scales[c] /= limit; scales[c] < smallestNormal {
			scales[c] = 0
		}
	}
	const half = TileCols / 2
	for r := range len(src) / TileCols {
		row, out := src[r*TileCols:][:TileCols], dst[r*half:][:half]
		for c := range out {
			out[c] = nibble(row[c], scales[c]) | nibble(row[c+half], scales[c+half])<<4
		}
	}
}

// nibble is v/scale+8. Adding 3*2^22 rounds to an integer, which is then in the lowest bits.
func nibble(v, scale float32) uint8 {
	if scale == 0 {
		return 8
	}
	const shift = 3 << 22
	return uint8(math.Float32bits(float32(v/scale)+shift)&15) ^ 8
}

// AbsMax returns the largest magnitude, 0 if there is no element; NaN if there is one.
// What bounds it: the loads.
func AbsMax(s []float32) float32 { return absMax(s) }

// QuantizeI8 is dst[i] = src[i]/scale, rounded to the nearest integer, ties to even. scale must be such that every
// quotient is finite and rounds to -127 to 127.
// What bounds it: the divisions, some 10 cycles for 8 elements.
func QuantizeI8(dst []int8, src []float32, scale float32) { quantizeI8(dst, src[:len(dst)], scale) }
