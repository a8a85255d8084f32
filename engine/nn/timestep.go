package nn

import (
	"math"

	"github.com/triptych-serving/triptych/engine/device"
)

// TimestepEmbedding is the two-layer network behind the sinusoid of a timestep (diffusers
// TimestepEmbedding).
type TimestepEmbedding struct {
	linear1, linear2 Linear
}

// NewTimestepEmbedding declares linear_1 [dim, in] and linear_2 [dim, dim].
func NewTimestepEmbedding(s *Scope, in, dim int) TimestepEmbedding {
	return TimestepEmbedding{linear1: NewLinear(s.Sub("linear_1"), in, dim), linear2: NewLinear(s.Sub("linear_2"), dim, dim)}
}

// Forward maps a sinusoid [B, in] to [B, dim].
func (e TimestepEmbedding) Forward(t *device.Tape, sinusoid device.Array) device.Array {
	return e.linear2.Forward(t, e.linear1.Act(t, sinusoid, device.SiLU))
}

// Add is Forward plus residual [B, dim].
func (e TimestepEmbedding) Add(t *device.Tape, sinusoid, residual device.Array) device.Array {
	return e.linear2.Add(t, e.linear1.Act(t, sinusoid, device.SiLU), residual)
}

// Sinusoid is the position code of a timestep, which may be fractional: dim/2 sines of angles that
// fall geometrically from timestep to timestep/10000, then as many cosines (first, if cosFirst);
// an odd dim ends in 0. freqShift shortens the geometric scale, as in diffusers
// get_timestep_embedding, whose float32 steps are followed one by one: at timestep 1000 an angle
// has only four digits behind the point, so rounding elsewhere would be seen.
func Sinusoid(timestep float64, dim int, cosFirst bool, freqShift float64) []float32 {
	half := dim / 2
	out := make([]float32, dim)
	sines, cosines := out[:half], out[half:2*half]
	if cosFirst {
		sines, cosines = cosines, sines
	}
	logPeriod := float32(-math.Log(10000))
	scale := float32(float64(half) - freqShift)
	for i := range half {
		exponent := logPeriod * float32(i) / scale
		angle := float32(timestep) * float32(math.Exp(float64(exponent)))
		sines[i] = float32(math.Sin(float64(angle)))
		cosines[i] = float32(math.Cos(float64(angle)))
	}
	return out
}
