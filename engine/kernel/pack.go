package kernel

// PackU8 lays up to 16 rows of weights, each [in, taps], into a panel [taps, in, 16], whatever the elements mean:
//
//	dst[(t*in+i)*TileCols+r] = src[(r*in+i)*taps+t], for r < rows; 0 for r from rows on
//
// What bounds it: the memory read and written; in cache, some 4 cycles for the 16 values of an element of 2 bytes.
func PackU8(dst, src []uint8, rows, in, taps int) {
	if in > 0 && taps > 0 {
		packU8(dst[:TileCols*in*taps], src[:rows*in*taps], rows, in, taps)
	}
}

// PackU16 is PackU8 for elements of two bytes.
func PackU16(dst, src []uint16, rows, in, taps int) {
	if in > 0 && taps > 0 {
		packU16(dst[:TileCols*in*taps], src[:rows*in*taps], rows, in, taps)
	}
}

// PackU32 is PackU8 for elements of four bytes.
func PackU32(dst, src []uint32, rows, in, taps int) {
	if in > 0 && taps > 0 {
		packU32(dst[:TileCols*in*taps], src[:rows*in*taps], rows, in, taps)
	}
}
