package kernel

// WidenF16 converts IEEE 754 half precision to float32, exactly. Signalling NaNs become quiet ones, as the hardware does.
// What bounds it: the memory read and written.
func WidenF16(dst []float32, src []uint16) {
	if len(dst) > 0 {
		widenF16(dst, src[:len(dst)])
	}
}

// WidenBF16 converts bfloat16, the upper half of a float32, to float32, exactly.
// What bounds it: the memory read and written.
func WidenBF16(dst []float32, src []uint16) {
	if len(dst) > 0 {
		widenBF16(dst, src[:len(dst)])
	}
}

// WidenI4 converts rows of 16 columns, each column with a scale: dst[16*r+c] = (q-8) * scales[c], rounded once, where q is
// the lower half of src[8*r+c] for c < 8 and the upper half of src[8*r+c-8] from there on. len(dst) must be a multiple
// of TileCols.
// What bounds it: the instructions, some 6 for 8 elements.
func WidenI4(dst []float32, src []uint8, scales *[TileCols]float32) {
	if len(dst) > 0 {
		widenI4(dst[:len(dst)/TileCols*TileCols], src[:len(dst)/2], scales)
	}
}

// WidenI8 converts rows of 16 columns, each column with a scale: dst[i] = src[i] * scales[i%TileCols], rounded once.
// len(dst) must be a multiple of TileCols.
// What bounds it: the memory read and written.
func WidenI8(dst []float32, src []int8, scales *[TileCols]float32) {
	if len(dst) > 0 {
		widenI8(dst[:len(dst)/TileCols*TileCols], src[:len(dst)], scales)
	}
}
