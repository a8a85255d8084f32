package nn

import (
	"math"
	"testing"
)

// The expected values are the definition in float64. At timestep 981 the float32 product of
// timestep and frequency is off by up to 981 * 2^-24 = 6e-5 from it.
func TestSinusoid(t *testing.T) {
	for _, c := range []struct {
		timestep  float64
		dim       int
		cosFirst  bool
		freqShift float64
	}{{0, 8, true, 0}, {1, 8, false, 0}, {981, 320, true, 0}, {499.25, 6, false, 1}, {20, 7, true, 0}} {
		got := Sinusoid(c.timestep, c.dim, c.cosFirst, c.freqShift)
		if len(got) != c.dim {
			t.Fatalf("%+v: %d values", c, len(got))
		}
		half := c.dim / 2
		for i := range half {
			angle := c.timestep * math.Exp(-math.Log(10000)*float64(i)/(float64(half)-c.freqShift))
			a, b := math.Sin(angle), math.Cos(angle)
			if c.cosFirst {
				a, b = b, a
			}
			if math.Abs(float64(got[i])-a) > 6e-5 || math.Abs(float64(got[half+i])-b) > 6e-5 {
				t.Errorf("%+v: element %d is %v and %v, want %v and %v", c, i, got[i], got[half+i], a, b)
			}
		}
		if c.dim%2 == 1 && got[c.dim-1] != 0 {
			t.Errorf("%+v: odd element %v, want 0", c, got[c.dim-1])
		}
	}
}
