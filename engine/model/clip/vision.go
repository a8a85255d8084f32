package clip

import (
	"strings"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
)

// VisionConfig is what config.json of an image encoder decides: the other half of CLIP, as transformers'
// CLIPVisionModelWithProjection has it.
type VisionConfig struct {
	HiddenSize   int // D, the width of the states
	Intermediate int // width of the MLP
	Layers       int
	Heads        int
	ImageSize    int // both sides of a picture, in pixels
	PatchSize    int // both sides of what is a token
	Projection   int // width of the embedding of a picture
	QuickGELU    bool
	LayerNormEps float32
}

// ClassVision is that of the network in transformers.
const ClassVision = "CLIPVisionModelWithProjection"

// visionHalf is the key of the image encoder's config in that of a whole CLIP.
const visionHalf = "vision_config"

// ParseVisionConfig reads config.json of a CLIPVisionModelWithProjection. Defaults are those of transformers'
// CLIPVisionConfig. The error is a config.Errors.
func ParseVisionConfig(data []byte) (VisionConfig, error) {
	r, err := config.Parse(data)
	if err != nil {
		return VisionConfig{}, err
	}
	if r.Has(visionHalf) {
		if r, err = r.Nested(visionHalf); err != nil {
			return VisionConfig{}, err
		}
	}
	const maxSide = 1 << 11
	c := VisionConfig{
		HiddenSize:   r.Int("hidden_size", 768, 1, maxWidth),
		Intermediate: r.Int("intermediate_size", 3072, 1, 4*maxWidth),
		Layers:       r.Int("num_hidden_layers", 12, 1, maxLayers),
		Heads:        r.Int("num_attention_heads", 12, 1, maxWidth),
		ImageSize:    r.Int("image_size", 224, 1, maxSide),
		PatchSize:    r.Int("patch_size", 32, 1, maxSide),
		Projection:   r.Int("projection_dim", 512, 1, maxWidth),
		QuickGELU:    r.String("hidden_act", "quick_gelu", "gelu") == "quick_gelu",
		LayerNormEps: float32(r.Float("layer_norm_eps", 1e-5, 1e-12, 1)),
	}
	r.Unset("num_channels", "3")
	if c.HiddenSize%c.Heads != 0 {
		r.Refuse("num_attention_heads", "a divisor of hidden_size")
	}
	if c.PatchSize > c.ImageSize || c.Patches() > maxPositions {
		r.Refuse("patch_size", "a size of which image_size has 1 to 64")
	}
	r.Unset("quantization_config")
	if err := r.Err(); err != nil {
		return VisionConfig{}, err
	}
	return c, nil
}

// Patches is how many patches a picture has; a rest of its sides is left out.
func (c VisionConfig) Patches() int {
	side := c.ImageSize / c.PatchSize
	return side * side
}

// Vision is a declared image encoder.
type Vision struct {
	cfg               VisionConfig
	patch             device.Weight
	class, positions  device.Weight
	layers            []layer
	preNorm, postNorm nn.LayerNorm
	projection        nn.Linear
}

// NewVision declares the model's parameters on s; s.Finish(IgnoreVision) tells what did not fit.
func NewVision(s *nn.Scope, c VisionConfig) *Vision {
	v := s.Sub("vision_model")
	m := &Vision{
		cfg:       c,
		patch:     v.Filter("embeddings.patch_embedding.weight", c.HiddenSize, 3, c.PatchSize, c.PatchSize),
		class:     v.Table("embeddings.class_embedding", 1, c.HiddenSize, c.HiddenSize),
		positions: v.Table("embeddings.position_embedding.weight", c.Patches()+1, c.HiddenSize),
		preNorm:   nn.NewLayerNorm(v.Sub("pre_layrnorm"), c.HiddenSize, c.LayerNormEps), // as CLIP spells it
	}
	for i := range c.Layers {
		l := newLayer(v.Index("encoder.layers", i), Config{
			HiddenSize: c.HiddenSize, Intermediate: c.Intermediate, Heads: c.Heads, QuickGELU: c.QuickGELU, LayerNormEps: c.LayerNormEps,
		})
		l.attn = l.attn.Bidirectional()
		m.layers = append(m.layers, l)
	}
	m.postNorm = nn.NewLayerNorm(v.Sub("post_layernorm"), c.HiddenSize, c.LayerNormEps)
	m.projection = nn.NewLinearNoBias(s.Sub("visual_projection"), c.HiddenSize, c.Projection)
	return m
}

// IgnoreVision excuses the position numbers that transformers before 4.31 saved, and the other half of a whole CLIP.
func IgnoreVision(name string) bool {
	return name == "vision_model.embeddings.position_ids" || strings.HasPrefix(name, "text_model.") || name == "text_projection.weight" || name == "logit_scale"
}

// States maps pictures [B, ImageSize, ImageSize, 3] to the states behind each layer but the last, [B, 1+Patches,
// HiddenSize], the class token's first: the penultimate ones. The ids are 0 in class [B, 1], and 1 to Patches in places [B, Patches].
func (m *Vision) States(t *device.Tape, pictures, class, places device.Array) device.Array {
	if t.Err() != nil {
		return device.Array{}
	}
	b, side, d := pictures.Shape[0], m.cfg.ImageSize/m.cfg.PatchSize, m.cfg.HiddenSize
	at := t.Embed(device.Embed{IDs: places, Tokens: m.positions})
	x := t.Conv2D(device.Conv2D{X: pictures, W: m.patch, Stride: m.cfg.PatchSize, Residual: t.Reshape(at, b, side, side, d)})
	first := t.Embed(device.Embed{IDs: class, Tokens: m.class, Positions: m.positions})
	x = t.Concat(device.Concat{A: t.Reshape(first, b, d), B: t.Reshape(x, b, side*side*d)})
	x = m.preNorm.Forward(t, t.Reshape(x, b, 1+side*side, d))
	for _, l := range m.layers[:len(m.layers)-1] {
		x = l.forward(t, x)
	}
	return x
}

// Embed maps penultimate states [B, 1+Patches, HiddenSize] to embeddings [B, 1+Patches, Projection], the first of each of
// which is the picture's.
func (m *Vision) Embed(t *device.Tape, states device.Array) device.Array {
	x := m.layers[len(m.layers)-1].forward(t, states)
	t.Mark("last_hidden_state", x)
	return m.projection.Forward(t, m.postNorm.Forward(t, x))
}
