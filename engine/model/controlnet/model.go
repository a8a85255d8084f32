package controlnet

import (
	"strconv"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/nn"
)

// hintNetwork is the path of what makes features of the picture.
const hintNetwork = "controlnet_cond_embedding"

// Model is a declared ControlNet.
type Model struct {
	hintIn, hintOut nn.Conv2D
	hints           []nn.Conv2D // pairs, the second of which halves
	trunk           unet.Trunk
	skips           []nn.Linear // 1x1 convolutions that were zero when training began
	mid             nn.Linear
}

// New declares the model's parameters on s; s.Finish(nil) tells what did not fit.
func New(s *nn.Scope, cfg Config) *Model {
	hint, last := s.Sub(hintNetwork), len(cfg.HintChannels)-1
	m := &Model{hintIn: nn.NewConv2D(hint.Sub("conv_in"), cfg.ImageChannels, cfg.HintChannels[0], 3)}
	for i := range last {
		in, out := cfg.HintChannels[i], cfg.HintChannels[i+1]
		m.hints = append(m.hints, nn.NewConv2D(hint.Index("blocks", 2*i), in, in, 3), nn.NewConv2D(hint.Index("blocks", 2*i+1), in, out, 3))
	}
	m.hintOut = nn.NewConv2D(hint.Sub("conv_out"), cfg.HintChannels[last], cfg.Trunk.Channels[0], 3)
	m.trunk = unet.NewTrunk(s, cfg.Trunk)
	for i, channels := range cfg.Trunk.Skips() {
		m.skips = append(m.skips, nn.NewLinear(s.Index("controlnet_down_blocks", i), channels, channels))
	}
	c := cfg.Trunk.Channels[len(cfg.Trunk.Channels)-1]
	m.mid = nn.NewLinear(s.Sub("controlnet_mid_block"), c, c)
	return m
}

// Hint maps a picture [B, H, W, 3] in 0 to 1 to its features [B, H/Factor, W/Factor, Channels[0]], halves of odd sides rounded
// up.
func (m *Model) Hint(t *device.Tape, picture device.Array) device.Array {
	h := m.hintIn.Act(t, picture, device.SiLU)
	for i := 0; i < len(m.hints); i += 2 {
		h = m.hints[i+1].Halve(t, m.hints[i].Act(t, h, device.SiLU), device.SiLU)
	}
	return m.hintOut.Forward(t, h)
}

// Forward gives the residuals for the skips of a U-Net and its middle, under a hint [B, h, w, Channels[0]]. Inputs are the
// U-Net's, without those of adapters. Errors of the tape are those of unet.Model.Forward.
func (m *Model) Forward(t *device.Tape, in unet.Inputs, hint device.Array) (skips []device.Array, mid device.Array) {
	h, mid := m.trunk.Forward(t, in, hint)
	if t.Err() != nil {
		return nil, device.Array{}
	}
	for i, zero := range m.skips {
		t.Mark("skip."+strconv.Itoa(i), h[i])
		skips = append(skips, zero.Forward(t, h[i]))
	}
	return skips, m.mid.Forward(t, mid)
}
