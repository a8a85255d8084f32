package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestVector(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, n := range lengths() {
			a, b, dst := normal(r, n, 1), normal(r, n, 1), guarded(t, n)
			Add(dst, a, b)
			for i := range dst {
				near(t, "Add", i, dst[i], float64(a[i]+b[i]), 0, 0)
			}
			PReLU(dst, a, b)
			for i, v := range a {
				want := float64(v)
				if v < 0 {
					want = float64(v * b[i])
				}
				near(t, "PReLU", i, dst[i], want, 0, 0)
			}
			Add(dst, a, b)
			Scale(dst, 0.3)
			for i := range dst {
				near(t, "Scale", i, dst[i], float64((a[i]+b[i])*0.3), 0, 0)
			}
		}
	})
}

func TestPReLUOfExtremes(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		x := []float32{nan, inf, -inf, math.MaxFloat32, -math.MaxFloat32, 0, -1, 1, nan}
		dst := make([]float32, len(x))
		PReLU(dst, x, []float32{0, 0, .5, 0, 0, 1, 0, 0, 1})
		if want := []float32{inf, -inf, math.MaxFloat32, 0, 0, 0, 1}; dst[0] == dst[0] || dst[8] == dst[8] || !slices.Equal(dst[1:8], want) {
			t.Errorf("%v: %v, want NaN, %v, NaN", x, dst, want)
		}
	})
}
