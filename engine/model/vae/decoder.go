package vae

import (
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
)

// Decoder is the declared network from latents to images.
type Decoder struct {
	postQuant *nn.Linear
	convIn    nn.Conv2D
	mid       midBlock
	up        []stage
	normOut   nn.GroupNorm
	convOut   nn.Conv2D
}

// NewDecoder declares the decoder's parameters on s; s.Finish(IgnoreForDecoder) tells what did not
// fit.
func NewDecoder(s *nn.Scope, cfg Config) *Decoder {
	d := &Decoder{}
	if cfg.PostQuantConv {
		l := nn.NewLinear(s.Sub("post_quant_conv"), cfg.LatentChannels, cfg.LatentChannels)
		d.postQuant = &l
	}
	s = s.Sub("decoder")
	n := len(cfg.Channels)
	channels := cfg.Channels[n-1]
	d.convIn = nn.NewConv2D(s.Sub("conv_in"), cfg.LatentChannels, channels, 3)
	d.mid = newMid(s.Sub("mid_block"), cfg, channels)
	for i := range n {
		out := cfg.Channels[n-1-i]
		b := s.Index("up_blocks", i)
		st := newStage(b, cfg, channels, out, cfg.Layers+1)
		if i < n-1 {
			u := nn.NewUpsample(b.Sub("upsamplers.0"), out)
			st.up = &u
		}
		d.up = append(d.up, st)
		channels = out
	}
	d.normOut = nn.NewGroupNorm(s.Sub("conv_norm_out"), channels, cfg.Groups, normEps)
	d.convOut = nn.NewConv2D(s.Sub("conv_out"), channels, ImageChannels, 3)
	return d
}

// IgnoreForDecoder excuses the encoder's half of the file.
func IgnoreForDecoder(name string) bool {
	return strings.HasPrefix(name, "encoder.") || strings.HasPrefix(name, "quant_conv.")
}

// Forward maps latents, unscaled, [B, h, w, LatentChannels] to images [B, h*Factor, w*Factor, 3] in
// about -1 to 1.
func (d *Decoder) Forward(t *device.Tape, z device.Array) device.Array {
	if d.postQuant != nil {
		z = d.postQuant.Forward(t, z)
	}
	h := d.mid.forward(t, d.convIn.Forward(t, z))
	t.Mark("mid", h)
	for _, s := range d.up {
		h = s.forward(t, h)
	}
	return d.convOut.Forward(t, d.normOut.Forward(t, h, device.SiLU))
}
