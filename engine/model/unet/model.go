package unet

import (
	"errors"
	"fmt"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
)

// Model is a declared U-Net.
type Model struct {
	cfg     Config
	time    nn.TimestepEmbedding
	added   nn.TimestepEmbedding // of a network with AdditionDim
	convIn  nn.Conv2D
	down    []block
	mid     midBlock
	up      []block
	normOut nn.GroupNorm
	convOut nn.Conv2D
}

// New declares the model's parameters on s; s.Finish(nil) tells what did not fit.
func New(s *nn.Scope, cfg Config) *Model {
	m := &Model{
		cfg:    cfg,
		time:   nn.NewTimestepEmbedding(s.Sub("time_embedding"), cfg.Channels[0], cfg.TimeDim),
		convIn: nn.NewConv2D(s.Sub("conv_in"), cfg.InChannels, cfg.Channels[0], cfg.ConvInKernel),
	}
	if cfg.AdditionDim > 0 {
		m.added = nn.NewTimestepEmbedding(s.Sub("add_embedding"), cfg.AdditionDim, cfg.TimeDim)
	}
	n := len(cfg.Channels)
	skips := []int{cfg.Channels[0]} // channels of what the way down leaves for the way up, last first
	channels := cfg.Channels[0]
	for i := range n {
		m.down = append(m.down, newDown(s.Index("down_blocks", i), cfg, i, channels))
		channels = cfg.Channels[i]
		for range cfg.Layers[i] {
			skips = append(skips, channels)
		}
		if i < n-1 {
			skips = append(skips, channels)
		}
	}
	m.mid = newMid(s.Sub("mid_block"), cfg)
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

// Forward predicts from noisy latents x [B, h, w, InChannels] at one timestep, given as its
// TimeInput [1, Channels[0]] (or one for each image, [B, Channels[0]]), under context
// [B, T, ContextDim]. The result is [B, h, w, OutChannels]. h and w are multiples of SizeMultiple;
// else the tape fails with a SizeError. It fails too if the network takes an addition.
func (m *Model) Forward(t *device.Tape, x, time, context device.Array) device.Array {
	if m.cfg.AdditionDim > 0 {
		t.Fail(fmt.Errorf("unet: no addition of %d values, which the network is conditioned on", m.cfg.AdditionDim))
	}
	if t.Err() != nil {
		return device.Array{}
	}
	return m.forward(t, x, m.time.Forward(t, time), context)
}

// ForwardAdded is Forward of a network with an AdditionDim: addition is [B, AdditionDim], and time has a row for each
// image.
func (m *Model) ForwardAdded(t *device.Tape, x, time, context, addition device.Array) device.Array {
	if m.cfg.AdditionDim == 0 {
		t.Fail(errors.New("unet: an addition, which the network is not conditioned on"))
	}
	if t.Err() != nil {
		return device.Array{}
	}
	return m.forward(t, x, m.time.Add(t, time, m.added.Forward(t, addition)), context)
}

// forward is Forward under an embedding of the time, [1, TimeDim] or [B, TimeDim].
func (m *Model) forward(t *device.Tape, x, emb, context device.Array) device.Array {
	if t.Err() != nil {
		return device.Array{}
	}
	if err := m.cfg.CheckSize(x.Shape[1], x.Shape[2]); err != nil {
		t.Fail(err)
		return device.Array{}
	}
	t.Mark("time_embedding", emb)
	emb = t.Activate(device.Activate{X: emb, Act: device.SiLU}) // once for all residual blocks

	h := m.convIn.Forward(t, x)
	t.Mark("conv_in", h)
	skips := []device.Array{h}
	for i, b := range m.down {
		h, skips = b.descend(t, h, emb, context, skips)
		if i == 0 {
			t.Mark("down0", h)
		}
	}
	h = m.mid.forward(t, h, emb, context)
	t.Mark("mid", h)
	for i, b := range m.up {
		h, skips = b.ascend(t, h, emb, context, skips)
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
