package kernel

// Pairs is how many pairs of bfloat16 hold n values.
func Pairs(n int) int { return (n + 1) / 2 }

// PairRow rounds values to bfloat16, to nearest even, two in the place of a float32, as Product takes them: the earlier
// one in the lower half, and zero behind an odd number. Denormal numbers become zero. It writes Pairs(len(src)) of dst.
// What bounds it: the memory read and written.
func PairRow(dst, src []float32) {
	if len(src) > 0 {
		pairRow(dst[:Pairs(len(src))], src)
	}
}

// PairPanel rounds so many rows of TileCols columns, stride floats apart, as PairRow does, two rows in the place of one:
//
//	dst[i*TileCols+c] = (src[2*i*stride+c], src[(2*i+1)*stride+c])
//
// The row behind an odd number is zero. dst and src do not overlap.
// What bounds it: the memory read and written.
func PairPanel(dst, src []float32, stride, rows int) {
	if rows == 0 {
		return
	}
	dst, src = dst[:Pairs(rows)*TileCols], src[:(rows-1)*stride+TileCols]
	if whole := rows &^ 1; whole > 0 {
		pairRows(dst, src, stride, whole)
	}
	if rows%2 == 1 {
		var two [2 * TileCols]float32
		copy(two[:], src[len(src)-TileCols:])
		pairRows(dst[len(dst)-TileCols:], two[:], TileCols, 2)
	}
}

// PairPanelBF16 is PairPanel for values that are bfloat16 already.
func PairPanelBF16(dst []float32, src []uint16, rows int) {
	dst, src = dst[:Pairs(rows)*TileCols], src[:rows*TileCols]
	if whole := rows &^ 1; whole > 0 {
		pairNarrow(dst, src, whole)
	}
	if rows%2 == 1 {
		var two [2 * TileCols]uint16
		copy(two[:], src[len(src)-TileCols:])
		pairNarrow(dst[len(dst)-TileCols:], two[:], 2)
	}
}
