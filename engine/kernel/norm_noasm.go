//go:build purego || !amd64

package kernel

func rowSum(x []float32) float32                   { return rowSumGeneric(x) }
func rowSquares(x []float32, mean float32) float32 { return rowSquaresGeneric(x, mean) }

func columnMoments(sum, sq []float64, x, about []float32, stride, pixels int) {
	columnMomentsGeneric(sum, sq, x, about, 0, stride, pixels)
}

func scaleShift(dst, x, scale, shift []float32, stride, pixels int, act Act) {
	scaleShiftGeneric(dst, x, scale, shift, stride, pixels, act)
}

func normalize(dst, x, gamma, beta []float32, mean, inverse float32) {
	normalizeGeneric(dst, x, gamma, beta, mean, inverse)
}
