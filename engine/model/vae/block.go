package vae

import (
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
)

// stage is one resolution: residual blocks, then a change of resolution unless it is the last
// (diffusers DownEncoderBlock2D, UpDecoderBlock2D).
type stage struct {
	resnets []nn.ResnetBlock2D
	down    *nn.Downsample
	up      *nn.Upsample
}

func newStage(s *nn.Scope, cfg Config, in, out, layers int) stage {
	var st stage
	for j := range layers {
		st.resnets = append(st.resnets, newResnet(s.Index("resnets", j), cfg, in, out))
		in = out
	}
	return st
}

func newResnet(s *nn.Scope, cfg Config, in, out int) nn.ResnetBlock2D {
	return nn.NewResnetBlock2D(s, in, out, 0, cfg.Groups, normEps)
}

func (s stage) forward(t *device.Tape, h device.Array) device.Array {
	for _, r := range s.resnets {
		h = r.Forward(t, h, device.Array{})
	}
	if s.down != nil {
		h = s.down.Forward(t, h)
	}
	if s.up != nil {
		h = s.up.Forward(t, h)
	}
	return h
}

// midBlock is the coarsest point: attention between two residual blocks (diffusers UNetMidBlock2D).
type midBlock struct {
	before, after nn.ResnetBlock2D
	attn          *nn.PixelAttention
}

func newMid(s *nn.Scope, cfg Config, channels int) midBlock {
	m := midBlock{before: newResnet(s.Sub("resnets.0"), cfg, channels, channels)}
	if cfg.MidAttention {
		a := nn.NewPixelAttention(s.Sub("attentions.0"), channels, cfg.Groups, normEps)
		m.attn = &a
	}
	m.after = newResnet(s.Sub("resnets.1"), cfg, channels, channels)
	return m
}

func (m midBlock) forward(t *device.Tape, h device.Array) device.Array {
	h = m.before.Forward(t, h, device.Array{})
	if m.attn != nil {
		h = m.attn.Forward(t, h)
	}
	return m.after.Forward(t, h, device.Array{})
}
