package nn

import "github.com/triptych-serving/triptych/engine/device"

// Conv2D is a square convolution of stride 1 that keeps height and width (torch.nn.Conv2d with
// padding (k-1)/2).
type Conv2D struct {
	w, b    device.Weight
	padding int
}

// NewConv2D declares weight [out, in, kernel, kernel] and bias [out]; kernel is odd.
func NewConv2D(s *Scope, in, out, kernel int) Conv2D {
	return Conv2D{w: s.Filter("weight", out, in, kernel, kernel), b: s.Vector("bias", out), padding: (kernel - 1) / 2}
}

// Forward maps [B, H, W, in] to [B, H, W, out].
func (c Conv2D) Forward(t *device.Tape, x device.Array) device.Array { return t.Conv2D(c.op(x)) }

// Shift is Forward plus a vector per image, [B, out] or [1, out], the same for every pixel.
// A zero vector Array adds nothing.
func (c Conv2D) Shift(t *device.Tape, x, vector device.Array) device.Array {
	op := c.op(x)
	op.PerImage = vector
	return t.Conv2D(op)
}

// Act is Forward followed by an activation. Halve does it with stride 2: halves of odd sides are rounded up.
func (c Conv2D) Act(t *device.Tape, x device.Array, act device.Activation) device.Array {
	op := c.op(x)
	op.Act = act
	return t.Conv2D(op)
}

// Halve is Act with stride 2, see there.
func (c Conv2D) Halve(t *device.Tape, x device.Array, act device.Activation) device.Array {
	op := c.op(x)
	op.Act, op.Stride = act, 2
	return t.Conv2D(op)
}

// Add is Forward plus residual [B, H, W, out].
func (c Conv2D) Add(t *device.Tape, x, residual device.Array) device.Array {
	op := c.op(x)
	op.Residual = residual
	return t.Conv2D(op)
}

func (c Conv2D) op(x device.Array) device.Conv2D {
	return device.Conv2D{X: x, W: c.w, Bias: c.b, Stride: 1, Top: c.padding, Left: c.padding, Bottom: c.padding, Right: c.padding}
}

// Op is the op of Forward, for networks that set more of it.
func (c Conv2D) Op(x device.Array) device.Conv2D { return c.op(x) }
