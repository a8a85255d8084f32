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
