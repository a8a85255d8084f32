package nn

import "github.com/triptych-serving/triptych/engine/device"

// Linear is y = x W^T + b over the last dimension (torch.nn.Linear). A 1x1 convolution is the same
// in channels-last layout and is declared with it too.
type Linear struct {
	w, b device.Weight
}

// NewLinear declares weight [out, in] and bias [out].
func NewLinear(s *Scope, in, out int) Linear {
	return Linear{w: s.Matrix("weight", out, in), b: s.Vector("bias", out)}
}

// NewLinearNoBias declares weight [out, in] alone.
func NewLinearNoBias(s *Scope, in, out int) Linear {
	return Linear{w: s.Matrix("weight", out, in)}
}

// Forward maps [..., in] to [..., out].
func (l Linear) Forward(t *device.Tape, x device.Array) device.Array {
	return t.Gemm(device.Gemm{X: x, W: l.w, Bias: l.b})
}

// Act is Forward followed by an activation.
func (l Linear) Act(t *device.Tape, x device.Array, act device.Activation) device.Array {
	return t.Gemm(device.Gemm{X: x, W: l.w, Bias: l.b, Act: act})
}

// Add is Forward plus residual [..., out].
func (l Linear) Add(t *device.Tape, x, residual device.Array) device.Array {
	return t.Gemm(device.Gemm{X: x, W: l.w, Bias: l.b, Residual: residual})
}
