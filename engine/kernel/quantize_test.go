package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestAbsMax(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, n := range lengths() {
			s, want := normal(r, n, 1), float32(0)
			for _, v := range s {
				want = max(want, float32(math.Abs(float64(v))))
			}
			if got := AbsMax(s); got != want {
				t.Fatalf("length %d: %v, want %v", n, got, want)
			}
			for i := range s { // wherever it is
				before := s[i]
				s[i] = -inf
				if got := AbsMax(s); got != inf {
					t.Fatalf("length %d: %v with -Inf at %d", n, got, i)
				}
				s[i] = nan
				if got := AbsMax(s); got == got {
					t.Fatalf("length %d: %v with NaN at %d", n, got, i)
				}
				s[i] = before
			}
		}
	})
}

func TestQuantizeI8(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, n := range lengths() {
			s := normal(r, n, 1)
			if n > 1 {
				s[n/2] = 0
			}
			scale := AbsMax(s) / 127
			got := make([]int8, n+1)
			got[n] = 77
			QuantizeI8(got[:n], s, scale)
			for i, v := range s {
				if want := int8(math.RoundToEven(float64(v / scale))); got[i] != want {
					t.Fatalf("length %d: %v/%v at %d gave %d, want %d", n, v, scale, i, got[i], want)
				}
				if e := math.Abs(float64(got[i])*float64(scale) - float64(v)); e > float64(scale)*(0.5+1e-5) {
					t.Fatalf("length %d: error %v of %v is above half of scale %v", n, e, v, scale)
				}
			}
			if got[n] != 77 {
				t.Fatalf("length %d: wrote beyond the end", n)
			}
		}
		ties := make([]float32, 64) // multiples of a half, exact: to the even neighbour
		for i := range ties {
			ties[i] = float32(i-32) / 2
		}
		got := make([]int8, len(ties))
		QuantizeI8(got, ties, 1)
		for i, v := range ties {
			if want := int8(math.RoundToEven(float64(v))); got[i] != want {
				t.Errorf("%v gave %d, want %d", v, got[i], want)
			}
		}
	})
}
