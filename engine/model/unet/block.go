package unet

import (
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
)

// block is one resolution on the way down or up: residual blocks, a transformer behind each if the
// block attends, and a change of resolution at the end unless it is the last (diffusers
// CrossAttnDownBlock2D, DownBlock2D, CrossAttnUpBlock2D, UpBlock2D).
type block struct {
	first        bool // marks its inner values
	resnets      []nn.ResnetBlock2D
	transformers []nn.Transformer2D // none, or as many as resnets
	downsample   *nn.Downsample
	upsample     *nn.Upsample
}

func newDown(s *nn.Scope, cfg Config, i, in int) block {
	b := block{first: i == 0}
	out := cfg.Channels[i]
	for j := range cfg.Layers[i] {
		b.resnets = append(b.resnets, newResnet(s.Index("resnets", j), cfg, in, out))
		if cfg.DownAttention[i] {
			b.transformers = append(b.transformers, newTransformer(s.Index("attentions", j), cfg, i))
		}
		in = out
	}
	if i < len(cfg.Channels)-1 {
		d := nn.NewDownsample(s.Sub("downsamplers.0"), out, cfg.DownsamplePadding)
		b.downsample = &d
	}
	return b
}

// newUp declares the i-th block on the way up, which consumes skips from the last to the first.
func newUp(s *nn.Scope, cfg Config, i, in int, skips []int) block {
	var b block
	level := len(cfg.Channels) - 1 - i
	out := cfg.Channels[level]
	for j := range skips {
		b.resnets = append(b.resnets, newResnet(s.Index("resnets", j), cfg, in+skips[len(skips)-1-j], out))
		if cfg.UpAttention[i] {
			b.transformers = append(b.transformers, newTransformer(s.Index("attentions", j), cfg, level))
		}
		in = out
	}
	if level > 0 {
		u := nn.NewUpsample(s.Sub("upsamplers.0"), out)
		b.upsample = &u
	}
	return b
}

func newResnet(s *nn.Scope, cfg Config, in, out int) nn.ResnetBlock2D {
	return nn.NewResnetBlock2D(s, in, out, cfg.TimeDim, cfg.Groups, cfg.NormEps)
}

func newTransformer(s *nn.Scope, cfg Config, level int) nn.Transformer2D {
	return nn.NewTransformer2D(s, cfg.Channels[level], cfg.ContextDim, cfg.Heads[level], cfg.TransformerLayers[level], cfg.Groups)
}

// attentions is how many attentions to the context the block has.
func (b block) attentions() (sum int) {
	for _, t := range b.transformers {
		sum += t.Blocks()
	}
	return sum
}

// attend runs the j-th transformer. image are the keys and values of an image prompt for the whole block, or none.
func (b block) attend(t *device.Tape, j int, h, context device.Array, image []nn.KeyValues) device.Array {
	if n := b.transformers[j].Blocks(); image != nil {
		image = image[j*n:][:n]
	}
	return b.transformers[j].Forward(t, h, context, image...)
}

// descend runs the block and pushes what the way up will need.
func (b block) descend(t *device.Tape, h, emb, context device.Array, image []nn.KeyValues, skips []device.Array) (device.Array, []device.Array) {
	for j, r := range b.resnets {
		h = r.Forward(t, h, emb)
		if b.first && j == 0 {
			t.Mark("resnet", h)
		}
		if b.transformers != nil {
			h = b.attend(t, j, h, context, image)
			if b.first && j == 0 {
				t.Mark("transformer", h)
			}
		}
		skips = append(skips, h)
	}
	if b.downsample != nil {
		h = b.downsample.Forward(t, h)
		skips = append(skips, h)
	}
	return h, skips
}

// ascend runs the block on h joined with one skip after another, and returns those left. control, if any, are added to the
// skips.
func (b block) ascend(t *device.Tape, h, emb, context device.Array, image []nn.KeyValues, skips, control []device.Array) (device.Array, []device.Array) {
	for j, r := range b.resnets {
		last := len(skips) - 1
		skip := skips[last]
		if len(control) > 0 {
			skip = t.Axpy(device.Axpy{A: 1, X: skip, Y: control[last]})
		}
		h = r.Forward(t, t.Concat(device.Concat{A: h, B: skip}), emb)
		skips = skips[:last]
		if b.transformers != nil {
			h = b.attend(t, j, h, context, image)
		}
	}
	if b.upsample != nil && t.Err() == nil {
		skip := skips[len(skips)-1].Shape
		h = b.upsample.To(t, h, skip[1], skip[2])
	}
	return h, skips
}

// midBlock is the coarsest point: a transformer between two residual blocks (diffusers
// UNetMidBlock2DCrossAttn).
type midBlock struct {
	before, after nn.ResnetBlock2D
	transformer   nn.Transformer2D
}

func newMid(s *nn.Scope, cfg Config) midBlock {
	level := len(cfg.Channels) - 1
	c := cfg.Channels[level]
	return midBlock{
		before:      newResnet(s.Sub("resnets.0"), cfg, c, c),
		transformer: newTransformer(s.Sub("attentions.0"), cfg, level),
		after:       newResnet(s.Sub("resnets.1"), cfg, c, c),
	}
}

func (b midBlock) forward(t *device.Tape, h, emb, context device.Array, image []nn.KeyValues) device.Array {
	h = b.before.Forward(t, h, emb)
	h = b.transformer.Forward(t, h, context, image...)
	return b.after.Forward(t, h, emb)
}
