package kernel

import (
	"math/rand/v2"
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
			Scale(dst, 0.3)
			for i := range dst {
				near(t, "Scale", i, dst[i], float64((a[i]+b[i])*0.3), 0, 0)
			}
		}
	})
}
