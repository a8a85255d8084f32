package unet

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
)

// Model is a declared U-Net.
type Model struct {
	Trunk
	up      []block
	normOut nn.GroupNorm
	convOut nn.Conv2D
}

// New declares the model's parameters on s; s.Finish(nil) tells what did not fit.
func New(s *nn.Scope, cfg Config) *Model {
	m := &Model{Trunk: NewTrunk(s, cfg)}
	n, skips := len(cfg.Channels), cfg.Skips()
	channels := cfg.Channels[n-1]
	for i := range n {
		level := n - 1 - i
		taken := skips[len(skips)-cfg.Layers[level]-1:]
		skips = skips[:len(skips)-len(taken)]
		m.up = append(m.up, newUp(s.Index("up_blocks", i), cfg, i, channels, taken))
		channels = cfg.Channels[level]
	}
	m.normOut = nn.NewGroupNorm(s.Sub("conv_norm_out"), channels, cfg.Groups, cfg.NormEps)
	m.convOut = nn.NewConv2D(s.Sub("conv_out"), channels, cfg.OutChannels, cfg.ConvOutKernel)
	return m
}

// Inputs are what a U-Net predicts from. B is the number of images, h and w are multiples of SizeMultiple.
type Inputs struct {
	Latents device.Array // noisy, [B, h, w, InChannels]
	// Time is the TimeInput of a timestep, [1, Channels[0]], or [B, Channels[0]], as a network with an AdditionDim needs it.
	Time     device.Array
	Context  device.Array // states attended to, [B, T, ContextDim]
	Addition device.Array // [B, AdditionDim] of a network that has one, else none

	// Control are added to what the way down leaves for the way up, Skips and sizes as there, and Middle [B, ..] to the
	// output of the middle: the residuals of ControlNets (Zhang et al. 2023, arXiv 2302.05543). None, or all.
	Control []device.Array
	Middle  device.Array

	// Image are keys and values of an image prompt, for each of CrossAttentions. Ye et al. 2023, arXiv 2308.06721. None, or all.
	Image []nn.KeyValues
}

// Forward predicts the noise (or velocity), [B, h, w, OutChannels]. The tape fails with a SizeError if the latents have
// another size, and if an addition is missing or too many.
func (m *Model) Forward(t *device.Tape, in Inputs) device.Array {
	emb := m.embed(t, in)
	if t.Err() != nil {
		return device.Array{}
	}
	h, skips := m.descend(t, m.convIn.Forward(t, in.Latents), emb, in)
	if len(in.Control) > 0 && len(in.Control) != len(skips) {
		t.Fail(fmt.Errorf("unet: %d control residuals, want %d", len(in.Control), len(skips)))
	}
	if t.Err() != nil {
		return device.Array{}
	}
	if in.Middle.Present() {
		h = t.Axpy(device.Axpy{A: 1, X: h, Y: in.Middle})
	}
	t.Mark("mid", h)
	image := in.Image
	if image != nil {
		image = image[m.cfg.downAttentions():]
	}
	for i, b := range m.up {
		var own []nn.KeyValues
		if image != nil {
			own, image = image[:b.attentions()], image[b.attentions():]
		}
		h, skips = b.ascend(t, h, emb, in.Context, own, skips, in.Control)
		if i == 0 {
			t.Mark("up0", h)
		}
	}
	return m.convOut.Forward(t, m.normOut.Forward(t, h, device.SiLU))
}

// TimeInput is the sinusoid of a timestep that Forward takes, Channels[0] long.
func (c Config) TimeInput(timestep float64) []float32 {
	return nn.Sinusoid(timestep, c.Channels[0], c.CosFirst, c.FreqShift)
}
