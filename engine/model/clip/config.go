// Package clip is the text encoder of Stable Diffusion: the text half of CLIP (Radford et al. 2021,
// arXiv 2103.00020) as transformers' CLIPTextModel has it.
//
// The package may import engine/device, engine/nn and engine/config.
package clip

import (
	"slices"

	"github.com/triptych-serving/triptych/engine/config"
)

// Config is what config.json of a text encoder decides.
type Config struct {
	VocabSize    int
	HiddenSize   int // D, the width of the states
	Intermediate int // width of the MLP
	Layers       int
	Heads        int
	MaxPositions int  // longest sequence of tokens
	QuickGELU    bool // else the exact GELU
	LayerNormEps float32
	EOS          int // the id at whose place the pooled state is, see Pooled
	Projection   int // width of the pooled state of a CLIPTextModelWithProjection
}

// argmaxEOS is what configs from before transformers 4.30 say, whose ids of special tokens are not the tokenizer's.
const argmaxEOS = 2

// Pooled is the place of the pooled state in ids, which are one or more: the first that is EOS, or where configs are so old
// that they say 2, of the largest id.
func (c Config) Pooled(ids []int32) int {
	if c.EOS == argmaxEOS {
		return slices.Index(ids, slices.Max(ids))
	}
	return max(0, slices.Index(ids, int32(c.EOS)))
}

// The bounds of a config, an order of magnitude above the largest published encoder, so that a
// hostile file cannot declare a manifest that is costly to hold.
const (
	maxVocab     = 1 << 20
	maxWidth     = 1 << 14
	maxLayers    = 96
	maxPositions = 1 << 12
)

// textHalf is the key of the text encoder's config in that of a whole CLIP.
const textHalf = "text_config"

// ParseConfig reads config.json of a CLIPTextModel. Defaults are those of transformers'
// CLIPTextConfig. The error is a config.Errors.
func ParseConfig(data []byte) (Config, error) {
	r, err := config.Parse(data)
	if err != nil {
		return Config{}, err
	}
	if r.Has(textHalf) {
		if r, err = r.Nested(textHalf); err != nil {
			return Config{}, err
		}
	}
	c := Config{
		VocabSize:    r.Int("vocab_size", 49408, 1, maxVocab),
		HiddenSize:   r.Int("hidden_size", 512, 1, maxWidth),
		Intermediate: r.Int("intermediate_size", 2048, 1, 4*maxWidth),
		Layers:       r.Int("num_hidden_layers", 12, 1, maxLayers),
		Heads:        r.Int("num_attention_heads", 8, 1, maxWidth),
		MaxPositions: r.Int("max_position_embeddings", 77, 1, maxPositions),
		QuickGELU:    r.String("hidden_act", "quick_gelu", "gelu") == "quick_gelu",
		LayerNormEps: float32(r.Float("layer_norm_eps", 1e-5, 1e-12, 1)),
		EOS:          r.Int("eos_token_id", 49407, 0, maxVocab),
		Projection:   r.Int("projection_dim", 512, 0, maxWidth),
	}
	if c.HiddenSize%c.Heads != 0 {
		r.Refuse("num_attention_heads", "a divisor of hidden_size")
	}
	r.Unset("use_attention_mask", "false") // padding would have to be masked
	r.Unset("per_layer_config")            // settings of single layers
	r.Unset("quantization_config")
	if err := r.Err(); err != nil {
		return Config{}, err
	}
	return c, nil
}
