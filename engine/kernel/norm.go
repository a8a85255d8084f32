package kernel

import "math"

// A group norm (Wu and He 2018, arXiv 1803.08494) is ColumnSums over the pixels, the means of its groups, ColumnSquares
// about them, and ScaleShift per pixel. Two passes, because E[x^2] - E[x]^2 cancels where the mean is large.

// ColumnSums adds the pixels of x [P, C] to sum [C]: sum[c] += x[p*C+c]. P is len(x)/C and must be whole.
// At most four floats are added up before a float64 takes the result.
// What bounds it: the memory read.
func ColumnSums(sum []float64, x []float32) {
	if wholePixels(len(x), len(sum)) > 0 {
		columnSums(sum, x)
	}
}

// ColumnSquares adds the squared distances from mean [C] of the pixels of x [P, C] to sq [C]: sq[c] += (x[p*C+c]-mean[c])^2.
// At most four squares are added up before a float64 takes the result.
// What bounds it: the memory read.
func ColumnSquares(sq []float64, x, mean []float32) {
	if wholePixels(len(x), len(sq)) > 0 {
		columnSquares(sq, x, mean[:len(sq)])
	}
}

func wholePixels(n, channels int) int {
	if n == 0 {
		return 0
	}
	if channels == 0 || n%channels != 0 {
		panic("kernel: column sums: x does not hold whole pixels")
	}
	return n / channels
}

// ScaleShift is a group norm applied to the channels of one pixel: dst[i] = act(x[i]*scale[i] + shift[i]).
// What bounds it: the memory with None, else the activation.
func ScaleShift(dst, x, scale, shift []float32, act Act) {
	if n := len(dst); n > 0 {
		scaleShift(dst, x[:n], scale[:n], shift[:n], act)
	}
}

// LayerNorm normalises one row, dst = (x - mean) / sqrt(variance + eps) * gamma + beta, the variance being the
// population's: Ba et al. 2016, arXiv 1607.06450. The variance is a second pass about the mean.
// What bounds it: a row is read three times, from L1; not memory.
func LayerNorm(dst, x, gamma, beta []float32, eps float32) {
	n := len(dst)
	if n == 0 {
		return
	}
	x = x[:n]
	mean := rowSum(x) / float32(n)
	variance := float64(rowSquares(x, mean)) / float64(n)
	normalize(dst, x, gamma[:n], beta[:n], mean, float32(1/math.Sqrt(variance+float64(eps))))
}
