package unet

import (
	"errors"
	"fmt"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
)

// Trunk is a U-Net's way down and its middle, with the embedding of time: what a ControlNet is a copy of.
type Trunk struct {
	cfg    Config
	time   nn.TimestepEmbedding
	added  nn.TimestepEmbedding // of a network with AdditionDim
	convIn nn.Conv2D
	down   []block
	mid    midBlock
}

// NewTrunk declares the trunk's parameters on s.
func NewTrunk(s *nn.Scope, cfg Config) Trunk {
	m := Trunk{
		cfg:    cfg,
		time:   nn.NewTimestepEmbedding(s.Sub("time_embedding"), cfg.Channels[0], cfg.TimeDim),
		convIn: nn.NewConv2D(s.Sub("conv_in"), cfg.InChannels, cfg.Channels[0], cfg.ConvInKernel),
	}
	if cfg.AdditionDim > 0 {
		m.added = nn.NewTimestepEmbedding(s.Sub("add_embedding"), cfg.AdditionDim, cfg.TimeDim)
	}
	channels := cfg.Channels[0]
	for i := range cfg.Channels {
		m.down = append(m.down, newDown(s.Index("down_blocks", i), cfg, i, channels))
		channels = cfg.Channels[i]
	}
	m.mid = newMid(s.Sub("mid_block"), cfg)
	return m
}

// Skips are the channels of what the way down leaves for the way up, in the order in which they are made.
func (c Config) Skips() []int {
	skips := []int{c.Channels[0]}
	for i, channels := range c.Channels {
		for range c.Layers[i] {
			skips = append(skips, channels)
		}
		if i < len(c.Channels)-1 {
			skips = append(skips, channels)
		}
	}
	return skips
}

// Forward runs the trunk. hint, if present, is added to the output of the first convolution, whose shape it has. skips are
// the outputs on the way down, as Config.Skips tells them, mid is that of the middle.
func (m *Trunk) Forward(t *device.Tape, in Inputs, hint device.Array) (skips []device.Array, mid device.Array) {
	emb := m.embed(t, in)
	if t.Err() != nil {
		return nil, device.Array{}
	}
	mid, skips = m.descend(t, m.convIn.Add(t, in.Latents, hint), emb, in)
	return skips, mid
}

// embed is SiLU of the embedding of the time and, where the network has one, the addition.
func (m *Trunk) embed(t *device.Tape, in Inputs) device.Array {
	switch given := in.Addition.Present(); {
	case t.Err() != nil:
		return device.Array{}
	case m.cfg.AdditionDim > 0 && !given:
		t.Fail(fmt.Errorf("unet: no addition of %d values, which the network is conditioned on", m.cfg.AdditionDim))
	case m.cfg.AdditionDim == 0 && given:
		t.Fail(errors.New("unet: an addition, which the network is not conditioned on"))
	default:
		if err := m.cfg.CheckSize(in.Latents.Shape[1], in.Latents.Shape[2]); err != nil {
			t.Fail(err)
		}
	}
	var emb device.Array
	if m.cfg.AdditionDim > 0 {
		emb = m.time.Add(t, in.Time, m.added.Forward(t, in.Addition))
	} else {
		emb = m.time.Forward(t, in.Time)
	}
	t.Mark("time_embedding", emb)
	return t.Activate(device.Activate{X: emb, Act: device.SiLU}) // once for all residual blocks
}

// descend runs everything behind the first convolution, whose output is h.
func (m *Trunk) descend(t *device.Tape, h, emb device.Array, in Inputs) (mid device.Array, skips []device.Array) {
	t.Mark("conv_in", h)
	skips = []device.Array{h}
	for i, b := range m.down {
		h, skips = b.descend(t, h, emb, in.Context, skips)
		if i == 0 {
			t.Mark("down0", h)
		}
	}
	return m.mid.forward(t, h, emb, in.Context), skips
}
