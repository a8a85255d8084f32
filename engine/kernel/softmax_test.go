package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestMaxRow(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, n := range lengths() {
			s := normal(r, n, 1)
			for i := range s {
				s[i] -= 10 // a padded lane of zero would win
			}
			want := -inf
			for _, v := range s {
				want = max(want, v)
			}
			if got := MaxRow(s); got != want {
				t.Errorf("length %d: got %v, want %v", n, got, want)
			}
			for i := range s { // the largest at every place, with NaN beside it
				old := s[i]
				s[i] = 5
				if i > 0 {
					s[i-1] = nan
				}
				if got := MaxRow(s); got != 5 {
					t.Fatalf("length %d, largest at %d: got %v", n, i, got)
				}
				s[i] = old
			}
		}
		if got := MaxRow([]float32{-inf, -inf, -inf}); got != -inf {
			t.Errorf("of minus infinities: %v", got)
		}
		if got := MaxRow([]float32{-inf, inf, 1}); got != inf {
			t.Errorf("with infinity: %v", got)
		}
	})
}

func TestExpRow(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, n := range lengths() {
			in, s := normal(r, n, 5), guarded(t, n)
			copy(s, in)
			const scale, top = float32(0.7), float32(3)
			got := ExpRow(s, scale, top)
			want := 0.0
			for i, v := range in {
				x := float32(float64(v)*float64(scale) - float64(top)) // one rounding, as promised
				e := math.Exp(float64(x))
				near(t, "ExpRow", i, s[i], e, expTolerance, 0)
				want += e
			}
			// Terms are positive: each lane's sum of n/8 terms rounds n/8 times, a random walk.
			near(t, "sum", n, got, want, 5e-7, 0)
		}
	})
}

// expTolerance is 2 units in the last place of a result just above a power of two.
const expTolerance = 2.4e-7

// TestExpSweep goes over the whole range in steps of a quarter per mille.
func TestExpSweep(t *testing.T) {
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		var in []float32
		for x := -90.0; x < 88.3; x += 0.00025 {
			in = append(in, float32(x))
		}
		s := append([]float32(nil), in...)
		ExpRow(s, 1, 0)
		worst := 0.0
		for i, x := range in {
			if x < expLow {
				if s[i] != 0 {
					t.Fatalf("exp(%v) = %v, want 0", x, s[i])
				}
				continue
			}
			want := math.Exp(float64(x))
			near(t, "exp", i, s[i], want, expTolerance, 0)
			unit := math.Ldexp(1, math.Ilogb(want)-23)
			worst = max(worst, math.Abs(float64(s[i])-want)/unit)
		}
		t.Logf("exp: worst error %.2f units in the last place", worst)
		if worst > 2 {
			t.Errorf("exp: off by %.2f units", worst)
		}
	})
}

func TestExpRowExtremes(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		s := []float32{-inf, -1e30, -88, 0, 1e30, inf, 89, 1, -inf, -87.5}
		sum := ExpRow(s, 1, 0)
		want := []float32{0, 0, 0, 1, inf, inf, inf, s[7], 0, 0}
		same(t, "extremes", s, want)
		if sum != inf {
			t.Errorf("sum %v, want +Inf", sum)
		}
		for n := 1; n < 20; n++ { // NaN anywhere reaches its element and the sum
			for at := range n {
				s := make([]float32, n)
				s[at] = nan
				sum := ExpRow(s, 1, 0)
				if sum == sum || s[at] == s[at] {
					t.Fatalf("length %d, NaN at %d: %v, sum %v", n, at, s[at], sum)
				}
			}
		}
		if sum := ExpRow([]float32{-inf, -inf}, 1, 0); sum != 0 {
			t.Errorf("a masked row sums to %v", sum)
		}
	})
}
