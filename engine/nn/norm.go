package nn

import "github.com/triptych-serving/triptych/engine/device"

// GroupNorm normalises over pixels and groups of channels (torch.nn.GroupNorm).
type GroupNorm struct {
	gamma, beta device.Weight
	groups      int
	eps         float32
}

// NewGroupNorm declares weight and bias [channels]; groups divides channels.
func NewGroupNorm(s *Scope, channels, groups int, eps float32) GroupNorm {
	return GroupNorm{gamma: s.Vector("weight", channels), beta: s.Vector("bias", channels), groups: groups, eps: eps}
}

// Forward normalises x [B, ..., channels] and applies act.
func (n GroupNorm) Forward(t *device.Tape, x device.Array, act device.Activation) device.Array {
	return t.GroupNorm(device.GroupNorm{X: x, Gamma: n.gamma, Beta: n.beta, Groups: n.groups, Eps: n.eps, Act: act})
}

// LayerNorm normalises over the last dimension (torch.nn.LayerNorm).
type LayerNorm struct {
	gamma, beta device.Weight
	eps         float32
}

// NewLayerNorm declares weight and bias [dim].
func NewLayerNorm(s *Scope, dim int, eps float32) LayerNorm {
	return LayerNorm{gamma: s.Vector("weight", dim), beta: s.Vector("bias", dim), eps: eps}
}

// Forward normalises x [..., dim].
func (n LayerNorm) Forward(t *device.Tape, x device.Array) device.Array {
	return t.LayerNorm(device.LayerNorm{X: x, Gamma: n.gamma, Beta: n.beta, Eps: n.eps})
}
