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

// Size is that of a feature map.
type Size struct{ Height, Width, Channels int }

// SkipSizes are the sizes of Skips for latents of h x w.
func (c Config) SkipSizes(h, w int) []Size {
	out, skips := []Size{{h, w, c.Channels[0]}}, c.Skips()
	for i := range c.Channels {
		for range c.Layers[i] {
			out = append(out, Size{h, w, skips[len(out)]})
		}
		if i < len(c.Channels)-1 {
			h, w = c.halved(h), c.halved(w)
			out = append(out, Size{h, w, skips[len(out)]})
		}
	}
	return out
}

// MiddleSize is that of the middle's output for latents of h x w, which is as large as the last skip.
func (c Config) MiddleSize(h, w int) Size {
	sizes := c.SkipSizes(h, w)
	return sizes[len(sizes)-1]
}

// halved is what a downsampling leaves of a side.
func (c Config) halved(side int) int { return (side + c.DownsamplePadding) / 2 }

// CrossAttentions are the widths of the attentions to the context, in the order of diffusers' attention processors: down,
// up, middle.
func (c Config) CrossAttentions() []int {
	var out []int
	add := func(level, transformers int) {
		for range transformers * c.TransformerLayers[level] {
			out = append(out, c.Channels[level])
		}
	}
	n := len(c.Channels)
	for i, attends := range c.DownAttention {
		if attends {
			add(i, c.Layers[i])
		}
	}
	for i, attends := range c.UpAttention {
		if level := n - 1 - i; attends {
			add(level, c.Layers[level]+1)
		}
	}
	add(n-1, 1)
	return out
}

// downAttentions is how many of CrossAttentions are on the way down.
func (c Config) downAttentions() (sum int) {
	for i, attends := range c.DownAttention {
		if attends {
			sum += c.Layers[i] * c.TransformerLayers[i]
		}
	}
	return sum
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
	case len(in.Image) > 0 && len(in.Image) != len(m.cfg.CrossAttentions()):
		t.Fail(fmt.Errorf("unet: an image prompt for %d attentions, want %d", len(in.Image), len(m.cfg.CrossAttentions())))
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
	image := in.Image
	for i, b := range m.down {
		var own []nn.KeyValues
		if image != nil {
			own, image = image[:b.attentions()], image[b.attentions():]
		}
		h, skips = b.descend(t, h, emb, in.Context, own, skips)
		if i == 0 {
			t.Mark("down0", h)
		}
	}
	if image != nil {
		image = image[len(image)-m.mid.transformer.Blocks():]
	}
	return m.mid.forward(t, h, emb, in.Context, image), skips
}
