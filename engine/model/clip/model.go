package clip

import (
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
)

// Model is a declared text encoder.
type Model struct {
	cfg               Config
	tokens, positions device.Weight
	layers            []layer
	finalNorm         nn.LayerNorm
}

// layer is a CLIPEncoderLayer: attention and MLP, each behind a norm and around a residual.
type layer struct {
	norm1, norm2 nn.LayerNorm
	attn         nn.Attention
	fc1, fc2     nn.Linear
	act          device.Activation
}

// prefixes are on every name in some files, names without one before: text_model in those of transformers before 5 and of a
// whole CLIP, and the name that transformers has for the model in a larger one.
func prefixes() []string { return []string{"text_model", "clip"} }

// New declares the model's parameters on s; s.Finish(Ignore) tells what did not fit.
func New(s *nn.Scope, cfg Config) *Model {
	const tokens = "embeddings.token_embedding.weight"
	for _, prefix := range prefixes() {
		if !s.Has(tokens) && s.Has(prefix+"."+tokens) {
			s = s.Sub(prefix)
		}
	}
	m := &Model{
		cfg:       cfg,
		tokens:    s.Table(tokens, cfg.VocabSize, cfg.HiddenSize),
		positions: s.Table("embeddings.position_embedding.weight", cfg.MaxPositions, cfg.HiddenSize),
	}
	for i := range cfg.Layers {
		m.layers = append(m.layers, newLayer(s.Index("encoder.layers", i), cfg))
	}
	m.finalNorm = nn.NewLayerNorm(s.Sub("final_layer_norm"), cfg.HiddenSize, cfg.LayerNormEps)
	return m
}

// Ignore excuses tensors that files carry and the model does not use: the position numbers that
// transformers before 4.31 saved, and the head of a CLIPTextModelWithProjection.
func Ignore(name string) bool {
	for _, prefix := range prefixes() {
		name = strings.TrimPrefix(name, prefix+".")
	}
	return name == "embeddings.position_ids" || name == "text_projection.weight"
}

func newLayer(s *nn.Scope, cfg Config) layer {
	l := layer{
		norm1: nn.NewLayerNorm(s.Sub("layer_norm1"), cfg.HiddenSize, cfg.LayerNormEps),
		attn:  nn.NewCausalAttention(s.Sub("self_attn"), cfg.HiddenSize, cfg.Heads),
		norm2: nn.NewLayerNorm(s.Sub("layer_norm2"), cfg.HiddenSize, cfg.LayerNormEps),
		fc1:   nn.NewLinear(s.Sub("mlp.fc1"), cfg.HiddenSize, cfg.Intermediate),
		fc2:   nn.NewLinear(s.Sub("mlp.fc2"), cfg.Intermediate, cfg.HiddenSize),
		act:   device.GELU,
	}
	if cfg.QuickGELU {
		l.act = device.QuickGELU
	}
	return l
}

// Forward maps token ids [B, T], T at most MaxPositions, to states [B, T, HiddenSize] behind the
// final norm: the last_hidden_state a StableDiffusionPipeline conditions on. Ids must be below
// VocabSize; the caller checks that.
func (m *Model) Forward(t *device.Tape, ids device.Array) device.Array {
	return m.Norm(t, m.Layers(t, m.Embed(t, ids, device.Array{}), 0, m.cfg.Layers))
}

// Embed maps token ids, as Forward takes them, to the states [B, T, HiddenSize] before the first layer. Rows of extra [E, HiddenSize], if
// there are any, are the tokens VocabSize, VocabSize + 1 and so on.
func (m *Model) Embed(t *device.Tape, ids, extra device.Array) device.Array {
	return t.Embed(device.Embed{IDs: ids, Tokens: m.tokens, Positions: m.positions, Extra: extra})
}

// Layers takes states [B, T, HiddenSize] from behind so many layers to behind others.
func (m *Model) Layers(t *device.Tape, x device.Array, from, to int) device.Array {
	for i, l := range m.layers[from:to] {
		x = l.forward(t, x)
		t.Mark("layer."+strconv.Itoa(from+i), x)
	}
	return x
}

// Norm is the final norm of states [B, T, HiddenSize].
func (m *Model) Norm(t *device.Tape, x device.Array) device.Array { return m.finalNorm.Forward(t, x) }

func (l layer) forward(t *device.Tape, x device.Array) device.Array {
	h := l.norm1.Forward(t, x)
	x = l.attn.Forward(t, h, h, x)
	return l.fc2.Add(t, l.fc1.Act(t, l.norm2.Forward(t, x), l.act), x)
}
