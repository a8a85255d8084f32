package nn

import "github.com/triptych-serving/triptych/engine/device"

// ResnetBlock2D is norm, SiLU, conv, twice, around a residual; the time embedding is added between
// the convolutions (diffusers ResnetBlock2D with its default time_scale_shift).
type ResnetBlock2D struct {
	norm1, norm2 GroupNorm
	conv1, conv2 Conv2D
	time         *Linear // nil in autoencoders
	shortcut     *Linear // nil when the number of channels stays
}

// NewResnetBlock2D declares a block from in to out channels; timeDim is the width of the time
// embedding, 0 for a block without one. groups divides in and out.
func NewResnetBlock2D(s *Scope, in, out, timeDim, groups int, eps float32) ResnetBlock2D {
	r := ResnetBlock2D{
		norm1: NewGroupNorm(s.Sub("norm1"), in, groups, eps),
		conv1: NewConv2D(s.Sub("conv1"), in, out, 3),
	}
	if timeDim > 0 {
		l := NewLinear(s.Sub("time_emb_proj"), timeDim, out)
		r.time = &l
	}
	r.norm2 = NewGroupNorm(s.Sub("norm2"), out, groups, eps)
	r.conv2 = NewConv2D(s.Sub("conv2"), out, out, 3)
	if in != out {
		l := NewLinear(s.Sub("conv_shortcut"), in, out)
		r.shortcut = &l
	}
	return r
}

// Forward maps [B, H, W, in] to [B, H, W, out]. time is SiLU of the time embedding, [1, timeDim]
// or [B, timeDim], and zero for a block without one.
func (r ResnetBlock2D) Forward(t *device.Tape, x, time device.Array) device.Array {
	var shift device.Array
	if r.time != nil {
		shift = r.time.Forward(t, time)
	}
	residual := x
	if r.shortcut != nil { // first, so that norm1 can take the place of x
		residual = r.shortcut.Forward(t, x)
	}
	h := r.conv1.Shift(t, r.norm1.Forward(t, x, device.SiLU), shift)
	return r.conv2.Add(t, r.norm2.Forward(t, h, device.SiLU), residual)
}
