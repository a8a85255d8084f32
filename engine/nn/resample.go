package nn

import "github.com/triptych-serving/triptych/engine/device"

// Downsample halves height and width by a 3x3 convolution of stride 2 (diffusers Downsample2D).
type Downsample struct {
	conv      Conv2D
	symmetric bool
}

// NewDownsample declares conv. padding is 1, or 0 for diffusers' asymmetric case: one row below
// and one column to the right.
func NewDownsample(s *Scope, channels, padding int) Downsample {
	return Downsample{conv: NewConv2D(s.Sub("conv"), channels, channels, 3), symmetric: padding == 1}
}

// Forward maps [B, H, W, C] to [B, H/2, W/2, C]. Halves of odd sides are rounded up with padding 1, down without.
func (d Downsample) Forward(t *device.Tape, x device.Array) device.Array {
	op := d.conv.op(x)
	op.Stride = 2
	if !d.symmetric {
		op.Top, op.Left = 0, 0
	}
	return t.Conv2D(op)
}

// Upsample doubles height and width by nearest neighbour and convolves 3x3 (diffusers Upsample2D).
type Upsample struct {
	conv Conv2D
}

// NewUpsample declares conv.
func NewUpsample(s *Scope, channels int) Upsample {
	return Upsample{conv: NewConv2D(s.Sub("conv"), channels, channels, 3)}
}

// Forward maps [B, H, W, C] to [B, 2H, 2W, C].
func (u Upsample) Forward(t *device.Tape, x device.Array) device.Array {
	op := u.conv.op(x)
	op.Upsample = true
	return t.Conv2D(op)
}

// To maps [B, H, W, C] to [B, h, w, C], where h is 2H or 2H-1 and w likewise.
func (u Upsample) To(t *device.Tape, x device.Array, h, w int) device.Array {
	if t.Err() != nil {
		return device.Array{}
	}
	op := u.conv.op(x)
	op.Upsample, op.CropBottom, op.CropRight = true, 2*x.Shape[1]-h, 2*x.Shape[2]-w
	return t.Conv2D(op)
}
