//go:build purego || !amd64

package kernel

func columnSums(sum []float64, x []float32)         { columnSumsGeneric(sum, x, 0) }
func columnSquares(sq []float64, x, mean []float32) { columnSquaresGeneric(sq, x, mean, 0) }
func rowSum(x []float32) float32                    { return rowSumGeneric(x) }
func rowSquares(x []float32, mean float32) float32  { return rowSquaresGeneric(x, mean) }

func scaleShift(dst, x, scale, shift []float32, act Act) {
	scaleShiftGeneric(dst, x, scale, shift, act)
}

func normalize(dst, x, gamma, beta []float32, mean, inverse float32) {
	normalizeGeneric(dst, x, gamma, beta, mean, inverse)
}
