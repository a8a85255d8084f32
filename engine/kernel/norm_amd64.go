//go:build !purego

package kernel

//go:noescape
func columnSumsAVX2(sum *float64, x *float32, channels, whole, pixels int)

//go:noescape
func columnSquaresAVX2(sq *float64, x, mean *float32, channels, whole, pixels int)

//go:noescape
func scaleShiftNoneAVX2(dst, x, scale, shift *float32, n int)

//go:noescape
func scaleShiftSiLUAVX2(dst, x, scale, shift *float32, n int)

//go:noescape
func scaleShiftGELUAVX2(dst, x, scale, shift *float32, n int)

//go:noescape
func scaleShiftQuickGELUAVX2(dst, x, scale, shift *float32, n int)

//go:noescape
func rowSumAVX2(x *float32, n int) float32

//go:noescape
func rowSquaresAVX2(x *float32, mean float32, n int) float32

//go:noescape
func normalizeAVX2(dst, x, gamma, beta *float32, mean, inverse float32, n int)

// The channels beyond the last eight are left to plain Go: networks have multiples of 8.

func columnSums(sum []float64, x []float32) {
	whole := 0
	if useAVX2 && len(sum) >= 8 {
		whole = len(sum) &^ 7
		columnSumsAVX2(&sum[0], &x[0], len(sum), whole, len(x)/len(sum))
	}
	columnSumsGeneric(sum, x, whole)
}

func columnSquares(sq []float64, x, mean []float32) {
	whole := 0
	if useAVX2 && len(sq) >= 8 {
		whole = len(sq) &^ 7
		columnSquaresAVX2(&sq[0], &x[0], &mean[0], len(sq), whole, len(x)/len(sq))
	}
	columnSquaresGeneric(sq, x, mean, whole)
}

func scaleShift(dst, x, scale, shift []float32, act Act) {
	if !useAVX2 {
		scaleShiftGeneric(dst, x, scale, shift, act)
		return
	}
	switch act {
	case SiLU:
		scaleShiftSiLUAVX2(&dst[0], &x[0], &scale[0], &shift[0], len(x))
	case GELU:
		scaleShiftGELUAVX2(&dst[0], &x[0], &scale[0], &shift[0], len(x))
	case QuickGELU:
		scaleShiftQuickGELUAVX2(&dst[0], &x[0], &scale[0], &shift[0], len(x))
	default:
		scaleShiftNoneAVX2(&dst[0], &x[0], &scale[0], &shift[0], len(x))
	}
}

func rowSum(x []float32) float32 {
	if useAVX2 {
		return rowSumAVX2(&x[0], len(x))
	}
	return rowSumGeneric(x)
}

func rowSquares(x []float32, mean float32) float32 {
	if useAVX2 {
		return rowSquaresAVX2(&x[0], mean, len(x))
	}
	return rowSquaresGeneric(x, mean)
}

func normalize(dst, x, gamma, beta []float32, mean, inverse float32) {
	if useAVX2 {
		normalizeAVX2(&dst[0], &x[0], &gamma[0], &beta[0], mean, inverse, len(x))
	} else {
		normalizeGeneric(dst, x, gamma, beta, mean, inverse)
	}
}
