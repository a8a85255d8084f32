// Package shapes knows the tensors of networks that this engine cannot run yet, by name and shape, from their configs
// alone, and how much memory their activations take at least: enough to plan for them.
//
// The package may import engine/device, engine/nn and engine/config.
package shapes

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/nn"
)

// floatBytes is the size of an activation.
const floatBytes = 4

// T5 is what config.json of an encoder of T5 decides (Raffel et al. 2020, arXiv 1910.10683), as transformers'
// T5EncoderModel has it.
type T5 struct {
	VocabSize int
	Dim       int // d_model, the width of the states
	HeadDim   int // d_kv
	Heads     int
	Inner     int // d_ff
	Layers    int
	Buckets   int  // of distances between tokens
	Gated     bool // two matrices before the activation, T5 v1.1
}

// The bounds of a config, well above the largest published network of either kind, so that a hostile file cannot
// declare a manifest that is costly to hold.
const (
	maxVocab  = 1 << 20
	maxWidth  = 1 << 16
	maxHeads  = 1 << 10
	maxLayers = 128
)

// ParseT5 reads config.json of a T5EncoderModel, with the defaults of transformers. The error is a config.Errors.
func ParseT5(data []byte) (T5, error) {
	r, err := config.Parse(data)
	if err != nil {
		return T5{}, err
	}
	const gated = "gated-gelu"
	c := T5{
		VocabSize: r.Int("vocab_size", 32128, 1, maxVocab),
		Dim:       r.Int("d_model", 512, 1, maxWidth),
		HeadDim:   r.Int("d_kv", 64, 1, maxWidth),
		Heads:     r.Int("num_heads", 8, 1, maxHeads),
		Inner:     r.Int("d_ff", 2048, 1, maxWidth),
		Layers:    r.Int("num_layers", 6, 1, maxLayers),
		Buckets:   r.Int("relative_attention_num_buckets", 32, 1, maxWidth),
		Gated:     r.String("feed_forward_proj", "relu", gated) == gated,
	}
	r.String("model_type", "t5")
	if c.Heads*c.HeadDim > maxWidth {
		r.Refuse("d_kv", fmt.Sprintf("at most %d by num_heads", maxWidth))
	}
	if err := r.Err(); err != nil {
		return T5{}, err
	}
	return c, nil
}

// Declare lists the encoder's tensors on s in the order they are used.
func (c T5) Declare(s *nn.Scope) {
	s.Table("shared.weight", c.VocabSize, c.Dim)
	s, inner := s.Sub("encoder"), c.Heads*c.HeadDim
	for i := range c.Layers {
		b := s.Index("block", i).Sub("layer")
		b.Sub("0").Vector("layer_norm.weight", c.Dim)
		a := b.Sub("0.SelfAttention")
		a.Matrix("q.weight", inner, c.Dim)
		a.Matrix("k.weight", inner, c.Dim)
		a.Matrix("v.weight", inner, c.Dim)
		if i == 0 { // for all layers
			a.Table("relative_attention_bias.weight", c.Buckets, c.Heads)
		}
		a.Matrix("o.weight", c.Dim, inner)
		b.Sub("1").Vector("layer_norm.weight", c.Dim)
		m := b.Sub("1.DenseReluDense")
		if c.Gated {
			m.Matrix("wi_0.weight", c.Inner, c.Dim)
			m.Matrix("wi_1.weight", c.Inner, c.Dim)
		} else {
			m.Matrix("wi.weight", c.Inner, c.Dim)
		}
		m.Matrix("wo.weight", c.Dim, c.Inner)
	}
	s.Vector("final_layer_norm.weight", c.Dim)
}

// IgnoreT5 excuses the second name of the embedding that some files carry.
func IgnoreT5(name string) bool { return name == "encoder.embed_tokens.weight" }

// T5Scratch is the formula of T5.ScratchBytes, in values for each token; H is num_heads.
const T5Scratch = "max(d_model + 4 H d_kv, 2 d_model + 2 d_ff) + H tokens"

// ScratchBytes is the least that the activations of a layer take in float32, for texts of so many tokens: the states
// beside queries, keys, values and their mixture, or the states twice beside the hidden layer; and the bias of each
// head between all tokens.
func (c T5) ScratchBytes(batch, tokens int) int64 {
	hidden := c.Inner
	if c.Gated {
		hidden *= 2
	}
	wide := max(c.Dim+4*c.Heads*c.HeadDim, 2*c.Dim+hidden)
	return floatBytes * (int64(batch*tokens)*int64(wide) + int64(c.Heads)*int64(tokens)*int64(tokens))
}
