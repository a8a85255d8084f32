package kernel

// AbsMax returns the largest magnitude, 0 if there is no element; NaN if there is one.
// What bounds it: the loads.
func AbsMax(s []float32) float32 { return absMax(s) }

// QuantizeI8 is dst[i] = src[i]/scale, rounded to the nearest integer, ties to even. scale must be such that every
// quotient is finite and rounds to -127 to 127.
// What bounds it: the divisions, some 10 cycles for 8 elements.
func QuantizeI8(dst []int8, src []float32, scale float32) { quantizeI8(dst, src[:len(dst)], scale) }
