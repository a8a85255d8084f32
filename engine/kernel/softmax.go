package kernel

import "math"

// A row's softmax is MaxRow, ExpRow with max = scale*MaxRow, and a Scale by the inverse of the sum; a flash attention
// does the same by blocks (Dao et al. 2022, arXiv 2205.14135).

// MaxRow returns the largest element, minus infinity if there is none. It passes over NaN: ExpRow hands it on.
// What bounds it: the loads.
func MaxRow(s []float32) float32 {
	if len(s) == 0 {
		return float32(math.Inf(-1))
	}
	return maxRow(s)
}

// ExpRow is s[i] = exp(s[i]*scale - max) and returns the sum of the results. Below exp(-87.3), where float32 turns
// denormal, the result is zero, so that masked scores (minus infinity) weigh nothing; above exp(88.37) it is infinite.
// max must be finite: with minus infinity for a row that is masked wholly the result is NaN.
// What bounds it: 20 arithmetic operations for 8 elements, some 10 cycles; not memory.
func ExpRow(s []float32, scale, max float32) (sum float32) {
	if len(s) == 0 {
		return 0
	}
	return expRow(s, scale, max)
}
