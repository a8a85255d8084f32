package kernel

import "math"

// A group norm (Wu and He 2018, arXiv 1803.08494) is ColumnMoments over the pixels, the means and variances of its groups,
// and ScaleShift. The moments are about a value near the data: E[x^2] - E[x]^2 cancels where the mean is large.

// ColumnMoments adds up, for each channel c < len(sum) of so many pixels that are stride floats apart, the distances from
// about[c] and their squares:
//
//	sum[c] += x[p*stride+c] - about[c]
//	sq[c] += (x[p*stride+c] - about[c])^2
//
// At most four floats are added up before a float64 takes the result.
// What bounds it: the memory read, and in cache 8 conversions and additions of float64 for 32 floats.
func ColumnMoments(sum, sq []float64, x, about []float32, stride, pixels int) {
	if n := len(sum); n > 0 && pixels > 0 {
		columnMoments(sum, sq[:n], x[:(pixels-1)*stride+n], about[:n], stride, pixels)
	}
}

// ScaleShift is a group norm applied to the channels i < len(scale) of so many pixels that are stride floats apart:
// dst[p*stride+i] = act(x[p*stride+i]*scale[i] + shift[i]).
// What bounds it: the memory with None, else the activation.
func ScaleShift(dst, x, scale, shift []float32, stride, pixels int, act Act) {
	if n := len(scale); n > 0 && pixels > 0 {
		end := (pixels-1)*stride + n
		scaleShift(dst[:end], x[:end], scale, shift[:n], stride, pixels, act)
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
