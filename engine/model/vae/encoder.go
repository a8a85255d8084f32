package vae

import (
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
)

// Encoder is the declared network from images to the moments of their latents.
type Encoder struct {
	factor  int
	convIn  nn.Conv2D
	down    []stage
	mid     midBlock
	normOut nn.GroupNorm
	convOut nn.Conv2D
	quant   *nn.Linear
}

// NewEncoder declares the encoder's parameters on s; s.Finish(IgnoreForEncoder) tells what did not
// fit.
func NewEncoder(s *nn.Scope, cfg Config) *Encoder {
	root := s
	s = s.Sub("encoder")
	channels := cfg.Channels[0]
	e := &Encoder{factor: cfg.Factor(), convIn: nn.NewConv2D(s.Sub("conv_in"), ImageChannels, channels, 3)}
	for i, out := range cfg.Channels {
		b := s.Index("down_blocks", i)
		st := newStage(b, cfg, channels, out, cfg.Layers)
		if i < len(cfg.Channels)-1 {
			d := nn.NewDownsample(b.Sub("downsamplers.0"), out, 0)
			st.down = &d
		}
		e.down = append(e.down, st)
		channels = out
	}
	e.mid = newMid(s.Sub("mid_block"), cfg, channels)
	e.normOut = nn.NewGroupNorm(s.Sub("conv_norm_out"), channels, cfg.Groups, normEps)
	e.convOut = nn.NewConv2D(s.Sub("conv_out"), channels, 2*cfg.LatentChannels, 3)
	if cfg.QuantConv {
		l := nn.NewLinear(root.Sub("quant_conv"), 2*cfg.LatentChannels, 2*cfg.LatentChannels)
		e.quant = &l
	}
	return e
}

// IgnoreForEncoder excuses the decoder's half of the file.
func IgnoreForEncoder(name string) bool {
	return strings.HasPrefix(name, "decoder.") || strings.HasPrefix(name, "post_quant_conv.")
}

// Forward maps images [B, H, W, 3] in -1 to 1 to moments [B, H/Factor, W/Factor, 2 LatentChannels]:
// means, then logarithms of variances, not yet clamped (see Config.Sample). H and W are multiples
// of Factor; else the tape fails with a SizeError.
func (e *Encoder) Forward(t *device.Tape, image device.Array) device.Array {
	if t.Err() != nil {
		return device.Array{}
	}
	if h, w := image.Shape[1], image.Shape[2]; h%e.factor != 0 || w%e.factor != 0 {
		t.Fail(&SizeError{Height: h, Width: w, Multiple: e.factor})
		return device.Array{}
	}
	h := e.convIn.Forward(t, image)
	for _, s := range e.down {
		h = s.forward(t, h)
	}
	h = e.mid.forward(t, h)
	t.Mark("mid", h)
	h = e.convOut.Forward(t, e.normOut.Forward(t, h, device.SiLU))
	if e.quant != nil {
		h = e.quant.Forward(t, h)
	}
	return h
}
