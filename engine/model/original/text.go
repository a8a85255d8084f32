package original

import (
	"fmt"
	"strings"

	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// textModel is before every name in CLIP's own files, and missing in old ones of Stable Diffusion.
const textModel = "text_model."

// projectionWeight is the one parameter of a text encoder that has no text_model before it.
const projectionWeight = "text_projection.weight"

// CLIP are the parameters of a text encoder as OpenAI's published it, which transformers has the names of. Bare names lack text_model. A
// projection to so many values is one more; 0 is none.
func CLIP(c clip.Config, projection int, bare bool) []Param {
	params := text(c, projection)
	for i := range params {
		p := &params[i]
		if p.Original = p.Name; !bare && p.Name != projectionWeight {
			p.Original = textModel + p.Name
		}
	}
	return params
}

// OpenCLIP are the parameters of a text encoder of open_clip, whose attention has queries, keys and values in one matrix, and whose projection is
// [HiddenSize, projection].
func OpenCLIP(c clip.Config, projection int) []Param {
	at := map[string]string{
		"embeddings.token_embedding": "token_embedding", "embeddings.position_embedding.weight": "positional_embedding",
		"final_layer_norm": "ln_final", projectionWeight: "text_projection",
	}
	for i := range c.Layers {
		at[fmt.Sprint("encoder.layers.", i)] = fmt.Sprint("transformer.resblocks.", i)
	}
	params := rename(text(c, projection), at, [][2]string{
		{"layer_norm1", "ln_1"}, {"layer_norm2", "ln_2"}, {"mlp.fc1", "mlp.c_fc"}, {"mlp.fc2", "mlp.c_proj"}, {"self_attn", "attn"},
	}...)
	for i := range params {
		p := &params[i]
		p.Transposed = p.Name == projectionWeight
		for part, of := range []string{".q_proj.", ".k_proj.", ".v_proj."} {
			if block, which, ok := strings.Cut(p.Original, of); ok {
				p.Original, p.Part, p.Parts = block+".in_proj_"+which, part, 3
			}
		}
	}
	return params
}

// text are the parameters of a text encoder by transformers' names, without text_model.
func text(c clip.Config, projection int) []Param {
	params := declared(func(s *nn.Scope) { clip.New(s, c) })
	if projection > 0 {
		params = append(params, Param{Name: projectionWeight, Shape: tensor.Shape{projection, c.HiddenSize}})
	}
	return params
}
