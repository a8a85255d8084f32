package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

var acts = []Act{None, SiLU, GELU, QuickGELU}

// define is the definition of an activation in float64.
func define(act Act, x float64) float64 {
	switch act {
	case SiLU:
		return x / (1 + math.Exp(-x))
	case GELU:
		return x * 0.5 * math.Erfc(-x/math.Sqrt2)
	case QuickGELU:
		return x / (1 + math.Exp(-1.702*x))
	}
	return x
}

// actTolerance is absolute for GELU up to 1, relative otherwise. The sigmoids: exp, the sum and the quotient are off by
// 6e-8 to 1.2e-7 each, and rounding 1.702x moves exp by 6e-8 of that exponent's size, hence the size of x.
// GELU: a handful of roundings of values up to |x|, and the fit's 2.7e-8.
func actTolerance(act Act, x float64) (tol, floor float64) {
	switch act {
	case None:
		return 0, 0
	case GELU:
		return 2e-7, 1
	}
	return 3e-7 + 1.2e-7*math.Abs(x), 0
}

func TestActivateSweep(t *testing.T) {
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		var x []float32
		for v := -60.0; v < 60; v += 1.0 / 512 {
			x = append(x, float32(v))
		}
		for e := -140; e < 120; e++ {
			x = append(x, float32(math.Ldexp(1.37, e)), -float32(math.Ldexp(1.37, e)))
		}
		dst := make([]float32, len(x))
		for _, act := range acts {
			Activate(dst, x, act)
			for i, v := range x {
				want := define(act, float64(v))
				tol, floor := actTolerance(act, float64(v))
				// A result below 1e-36 may be flushed to zero or off by the clamp of exp.
				if math.Abs(want) > 1e-36 || math.Abs(float64(dst[i])) > 1e-35 {
					near(t, actName(act), i, dst[i], want, tol, floor)
				}
			}
		}
	})
}

func actName(a Act) string { return [...]string{"None", "SiLU", "GELU", "QuickGELU"}[a] }

func TestActivateExtremes(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		for _, act := range acts {
			x := []float32{nan, inf, math.MaxFloat32, -math.MaxFloat32, 0, -inf, -1e4, 1e4, nan}
			dst := make([]float32, len(x))
			Activate(dst, x, act)
			if dst[0] == dst[0] || dst[8] == dst[8] {
				t.Errorf("%s: NaN became %v, %v", actName(act), dst[0], dst[8])
			}
			if dst[1] != inf || dst[2] != math.MaxFloat32 || dst[7] != 1e4 || dst[4] != 0 {
				t.Errorf("%s of %v: %v", actName(act), x, dst)
			}
			if act != None && (math.Abs(float64(dst[3])) > 1e-9 || math.Abs(float64(dst[6])) > 1e-9 || dst[5] < -1e-9) {
				t.Errorf("%s of %v: %v", actName(act), x, dst)
			}
		}
	})
}

func TestFinish(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, n := range lengths() {
			for mask := range 8 {
				for _, act := range acts {
					operand := [3][]float32{}
					for i := range operand {
						if mask>>i&1 == 1 {
							operand[i] = normal(r, n, 2)
						}
					}
					acc, dst := normal(r, n, 2), guarded(t, n)
					Finish(dst, acc, operand[0], operand[1], operand[2], act)
					for i, v := range acc {
						x, residual := v, 0.0 // in float32, so that only the activation's error counts
						for _, o := range operand[:2] {
							if o != nil {
								x += o[i]
							}
						}
						if operand[2] != nil {
							residual = float64(operand[2][i])
						}
						// Values are below 20: one more rounding for the residual.
						near(t, actName(act), i, dst[i], define(act, float64(x))+residual, 1e-6, 1)
					}
					inPlace := append([]float32(nil), acc...)
					Finish(inPlace, inPlace, operand[0], operand[1], operand[2], act)
					same(t, "in place", inPlace, dst)
				}
			}
		}
	})
}

func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: element %d: %v, want %v", what, i, got[i], want[i])
		}
	}
}

func TestActivateAndGEGLULengths(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, n := range lengths() {
			x, gate, dst := normal(r, n, 3), normal(r, n, 3), guarded(t, n)
			for _, act := range acts {
				Activate(dst, x, act)
				for i := range dst {
					tol, floor := actTolerance(act, float64(x[i]))
					near(t, actName(act), i, dst[i], define(act, float64(x[i])), tol, floor)
					one := []float32{0}
					Activate(one, x[i:], act)
					same(t, "alone", one, dst[i:i+1])
				}
			}
			GEGLU(dst, x, gate)
			for i := range dst {
				// GELU's tolerance times x.
				near(t, "GEGLU", i, dst[i], float64(x[i])*define(GELU, float64(gate[i])), 2e-7*max(1, math.Abs(float64(x[i]))), 1)
			}
		}
	})
}
