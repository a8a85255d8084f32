package nn

import "github.com/triptych-serving/triptych/engine/device"

// FeedForward is a GELU-gated feed forward of four times the width (diffusers FeedForward with
// activation "geglu"; Shazeer 2020, arXiv 2002.05202).
type FeedForward struct {
	in, out Linear
}

// NewFeedForward declares net.0.proj [8 dim, dim], values before gates, and net.2 [dim, 4 dim].
func NewFeedForward(s *Scope, dim int) FeedForward {
	return FeedForward{in: NewLinear(s.Sub("net.0.proj"), dim, 8*dim), out: NewLinear(s.Sub("net.2"), 4*dim, dim)}
}

// Add maps x [..., dim] to the same and adds residual.
func (f FeedForward) Add(t *device.Tape, x, residual device.Array) device.Array {
	return f.out.Add(t, t.GEGLU(device.GEGLU{X: f.in.Forward(t, x)}), residual)
}
