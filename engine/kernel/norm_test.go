package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestColumnMoments(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, channels := range []int{1, 3, 4, 7, 8, 9, 16, 31, 32, 40, 320} {
			for _, pixels := range []int{0, 1, 2, 3, 4, 5, 7, 8, 64} {
				stride := channels + 3
				x, about := normal(r, pixels*stride, 1)[:max(0, pixels*stride-3)], make([]float32, channels)
				for i := range x {
					x[i] += 100 // a large mean: E[x^2] - E[x]^2 would lose everything
				}
				sum, sq := make([]float64, channels), make([]float64, channels)
				for c := range about {
					about[c] = 100 + float32(c)/8
					sum[c], sq[c] = 5, 7 // it adds
				}
				ColumnMoments(sum, sq, x, about, stride, pixels)
				for c := range channels {
					wantSum, wantSq, size := 5.0, 7.0, 5.0
					for p := range pixels {
						d := float64(x[p*stride+c] - about[c])
						wantSum += d
						wantSq += d * d
						size += math.Abs(d)
					}
					// Four floats are added in float32: two roundings of 6e-8 for the distances, four for the squares.
					if d := math.Abs(sum[c] - wantSum); d > 2e-7*size {
						t.Fatalf("%d pixels, channel %d: sum %v, want %v", pixels, c, sum[c], wantSum)
					}
					near(t, "squares", c, float32(sq[c]), wantSq, 3e-7, 0)
				}
			}
		}
	})
}

func TestScaleShift(t *testing.T) {
	const pixels = 3
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, n := range lengths() {
			for _, act := range acts {
				stride := n + 2 // the floats between two pixels' channels stay
				x, scale, shift, dst := normal(r, pixels*stride, 1), normal(r, n, 1), normal(r, n, 1), guarded(t, pixels*stride)
				for i := range dst {
					dst[i] = x[i]
				}
				ScaleShift(dst, x, scale, shift, stride, pixels, act)
				for i, got := range dst {
					c := i % stride
					if c >= n {
						same(t, "between", dst[i:i+1], x[i:i+1])
						continue
					}
					y := float64(x[i])*float64(scale[c]) + float64(shift[c])
					// The product may be rounded before the sum, and values are below 16.
					near(t, actName(act), i, got, define(act, y), 2e-6, 1)
				}
				ScaleShift(x, x, scale, shift, stride, pixels, act)
				same(t, "in place", x, dst)
			}
		}
	})
}

func TestLayerNorm(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, n := range lengths() {
			for _, offset := range []float32{0, 30} {
				x, gamma, beta, dst := normal(r, n, 2), normal(r, n, 1), normal(r, n, 1), guarded(t, n)
				mean, variance := 0.0, 0.0
				for i := range x {
					x[i] += offset
					mean += float64(x[i])
				}
				mean /= float64(n)
				for _, v := range x {
					variance += (float64(v) - mean) * (float64(v) - mean)
				}
				const eps = 1e-5
				inverse := 1 / math.Sqrt(variance/float64(n)+eps)
				LayerNorm(dst, x, gamma, beta, eps)
				for i, v := range x {
					want := (float64(v)-mean)*inverse*float64(gamma[i]) + float64(beta[i])
					// The mean is rounded to 6e-8 of its size, some 4e-6 of a deviation for an offset of 30; a row of one or two
					// may lie so close together that eps rules and the inverse magnifies that.
					tol := 3e-6 + 1e-7*math.Abs(mean)*inverse*max(1, math.Abs(float64(gamma[i])))*2
					near(t, "LayerNorm", i, dst[i], want, tol, 1)
				}
			}
		}
	})
}

// TestLayerNormPropagates: one NaN spoils its row, and a constant row gives beta.
func TestLayerNormPropagates(t *testing.T) {
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		ones, dst := make([]float32, 19), make([]float32, 19)
		for i := range ones {
			ones[i] = 1
		}
		LayerNorm(dst, ones, ones, ones, 1e-5)
		same(t, "constant row", dst, ones)
		x := append([]float32(nil), ones...)
		x[18] = float32(math.NaN())
		LayerNorm(dst, x, ones, ones, 1e-5)
		for i, v := range dst {
			if v == v {
				t.Fatalf("element %d: %v, want NaN", i, v)
			}
		}
	})
}
