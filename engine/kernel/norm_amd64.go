//go:build !purego

package kernel

//go:noescape
func columnMomentsAVX2(sum, sq *float64, x, about *float32, whole, stride, pixels int)

//go:noescape
func scaleShiftNoneAVX2(dst, x, scale, shift *float32, n, stride, pixels int)

//go:noescape
func scaleShiftSiLUAVX2(dst, x, scale, shift *float32, n, stride, pixels int)

//go:noescape
func scaleShiftGELUAVX2(dst, x, scale, shift *float32, n, stride, pixels int)

//go:noescape
func scaleShiftQuickGELUAVX2(dst, x, scale, shift *float32, n, stride, pixels int)

//go:noescape
func rowSumAVX2(x *float32, n int) float32

//go:noescape
func rowSquaresAVX2(x *float32, mean float32, n int) float32

//go:noescape
func normalizeAVX2(dst, x, gamma, beta *float32, mean, inverse float32, n int)

//go:noescape
func scaleShiftNoneAVX512(dst, x, scale, shift *float32, n, stride, pixels int)

//go:noescape
func scaleShiftSiLUAVX512(dst, x, scale, shift *float32, n, stride, pixels int)

//go:noescape
func scaleShiftGELUAVX512(dst, x, scale, shift *float32, n, stride, pixels int)

//go:noescape
func scaleShiftQuickGELUAVX512(dst, x, scale, shift *float32, n, stride, pixels int)

//go:noescape
func rowSumAVX512(x *float32, n int) float32

//go:noescape
func rowSquaresAVX512(x *float32, mean float32, n int) float32

//go:noescape
func normalizeAVX512(dst, x, gamma, beta *float32, mean, inverse float32, n int)

// The channels beyond the last eight are left to plain Go: networks have multiples of 8.

func columnMoments(sum, sq []float64, x, about []float32, stride, pixels int) {
	whole := 0
	if useAVX2 && len(sum) >= 8 {
		whole = len(sum) &^ 7
		columnMomentsAVX2(&sum[0], &sq[0], &x[0], &about[0], whole, stride, pixels)
	}
	columnMomentsGeneric(sum, sq, x, about, whole, stride, pixels)
}

func scaleShift(dst, x, scale, shift []float32, stride, pixels int, act Act) {
	if !useAVX2 {
		scaleShiftGeneric(dst, x, scale, shift, stride, pixels, act)
		return
	}
	n := len(scale)
	if useAVX512 {
		switch act {
		case SiLU:
			scaleShiftSiLUAVX512(&dst[0], &x[0], &scale[0], &shift[0], n, stride, pixels)
		case GELU:
			scaleShiftGELUAVX512(&dst[0], &x[0], &scale[0], &shift[0], n, stride, pixels)
		case QuickGELU:
			scaleShiftQuickGELUAVX512(&dst[0], &x[0], &scale[0], &shift[0], n, stride, pixels)
		default:
			scaleShiftNoneAVX512(&dst[0], &x[0], &scale[0], &shift[0], n, stride, pixels)
		}
		return
	}
	switch act {
	case SiLU:
		scaleShiftSiLUAVX2(&dst[0], &x[0], &scale[0], &shift[0], n, stride, pixels)
	case GELU:
		scaleShiftGELUAVX2(&dst[0], &x[0], &scale[0], &shift[0], n, stride, pixels)
	case QuickGELU:
		scaleShiftQuickGELUAVX2(&dst[0], &x[0], &scale[0], &shift[0], n, stride, pixels)
	default:
		scaleShiftNoneAVX2(&dst[0], &x[0], &scale[0], &shift[0], n, stride, pixels)
	}
}

func rowSum(x []float32) float32 {
	switch {
	case useAVX512:
		return rowSumAVX512(&x[0], len(x))
	case useAVX2:
		return rowSumAVX2(&x[0], len(x))
	}
	return rowSumGeneric(x)
}

func rowSquares(x []float32, mean float32) float32 {
	switch {
	case useAVX512:
		return rowSquaresAVX512(&x[0], mean, len(x))
	case useAVX2:
		return rowSquaresAVX2(&x[0], mean, len(x))
	}
	return rowSquaresGeneric(x, mean)
}

func normalize(dst, x, gamma, beta []float32, mean, inverse float32) {
	switch {
	case useAVX512:
		normalizeAVX512(&dst[0], &x[0], &gamma[0], &beta[0], mean, inverse, len(x))
	case useAVX2:
		normalizeAVX2(&dst[0], &x[0], &gamma[0], &beta[0], mean, inverse, len(x))
	default:
		normalizeGeneric(dst, x, gamma, beta, mean, inverse)
	}
}
