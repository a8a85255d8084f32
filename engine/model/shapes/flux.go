package shapes

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/nn"
)

// Flux is what config.json of the transformer of FLUX.1 decides (Black Forest Labs 2024), as diffusers'
// FluxTransformer2DModel has it: blocks of text and image that attend to each other, then blocks of both in one row.
type Flux struct {
	InChannels  int // of a token: a square of 2x2 latents
	OutChannels int
	Heads       int
	HeadDim     int
	Double      int // num_layers
	Single      int // num_single_layers
	ContextDim  int // of the states of T5
	PooledDim   int // of the one of CLIP
	Guidance    bool
}

// FluxPatch is the side of the square of latents that is one token.
const FluxPatch = 2

// sinusoid is the width of a number's position code; no config changes it.
const sinusoid = 256

// ParseFlux reads config.json of a FluxTransformer2DModel, with the defaults of diffusers. The error is a config.Errors.
func ParseFlux(data []byte) (Flux, error) {
	r, err := config.Parse(data)
	if err != nil {
		return Flux{}, err
	}
	r.String("_class_name", "FluxTransformer2DModel")
	r.Int("patch_size", 1, 1, 1)
	c := Flux{
		InChannels: r.Int("in_channels", 64, FluxPatch*FluxPatch, maxWidth),
		Heads:      r.Int("num_attention_heads", 24, 1, maxHeads),
		HeadDim:    r.Int("attention_head_dim", 128, 1, maxWidth),
		Double:     r.Int("num_layers", 19, 0, maxLayers),
		Single:     r.Int("num_single_layers", 38, 0, maxLayers),
		ContextDim: r.Int("joint_attention_dim", 4096, 1, maxWidth),
		PooledDim:  r.Int("pooled_projection_dim", 768, 1, maxWidth),
		Guidance:   r.Bool("guidance_embeds", false),
	}
	c.OutChannels = r.OptionalInt("out_channels", c.InChannels, 1, maxWidth)
	if c.dim() > maxWidth/4 {
		r.Refuse("attention_head_dim", fmt.Sprintf("at most %d by num_attention_heads", maxWidth/4))
	}
	if err := r.Err(); err != nil {
		return Flux{}, err
	}
	return c, nil
}

func (c Flux) dim() int { return c.Heads * c.HeadDim }

// Declare lists the transformer's tensors on s in the order they are used.
func (c Flux) Declare(s *nn.Scope) {
	d, mlp := c.dim(), 4*c.dim()
	linear := func(s *nn.Scope, name string, in, out int) { nn.NewLinear(s.Sub(name), in, out) }
	linear(s, "x_embedder", c.InChannels, d)
	t := s.Sub("time_text_embed")
	nn.NewTimestepEmbedding(t.Sub("timestep_embedder"), sinusoid, d)
	if c.Guidance {
		nn.NewTimestepEmbedding(t.Sub("guidance_embedder"), sinusoid, d)
	}
	nn.NewTimestepEmbedding(t.Sub("text_embedder"), c.PooledDim, d)
	linear(s, "context_embedder", c.ContextDim, d)
	for i := range c.Double {
		b := s.Index("transformer_blocks", i)
		linear(b, "norm1.linear", d, 6*d)
		linear(b, "norm1_context.linear", d, 6*d)
		a := b.Sub("attn")
		for _, name := range []string{"to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"} {
			linear(a, name, d, d)
		}
		for _, name := range []string{"norm_q", "norm_k", "norm_added_q", "norm_added_k"} {
			a.Vector(name+".weight", c.HeadDim)
		}
		linear(a, "to_out.0", d, d)
		linear(a, "to_add_out", d, d)
		for _, name := range []string{"ff", "ff_context"} {
			linear(b, name+".net.0.proj", d, mlp)
			linear(b, name+".net.2", mlp, d)
		}
	}
	for i := range c.Single {
		b := s.Index("single_transformer_blocks", i)
		linear(b, "norm.linear", d, 3*d)
		linear(b, "proj_mlp", d, mlp)
		for _, name := range []string{"to_q", "to_k", "to_v"} {
			linear(b, "attn."+name, d, d)
		}
		b.Vector("attn.norm_q.weight", c.HeadDim)
		b.Vector("attn.norm_k.weight", c.HeadDim)
		linear(b, "proj_out", d+mlp, d)
	}
	linear(s, "norm_out.linear", d, 2*d)
	linear(s, "proj_out", d, c.OutChannels)
}

// FluxScratch is the formula of Flux.ScratchBytes, in values for each token; d is the width, H attention_head_dim.
const FluxScratch = "9 d + 2 H (d = heads H), and the inputs"

// ScratchBytes is the least that the activations of a block take in float32, for latents of h x w and texts of so many
// tokens: in a single block the states beside queries, keys, values, their mixture and the hidden layer of 4 d, which
// follow from one input; in a double block the first five, or the states beside the image's hidden layer and its
// input. To that come the rotations of all positions, and the inputs.
func (c Flux) ScratchBytes(batch, h, w, tokens int) int64 {
	d, image := int64(c.dim()), int64(h/FluxPatch)*int64(w/FluxPatch)
	all := image + int64(tokens)
	var block int64
	if c.Double > 0 {
		block = max(5*d*all, d*all+5*d*image)
	}
	if c.Single > 0 {
		block = max(block, 9*d*all)
	}
	inputs := int64(tokens)*int64(c.ContextDim) + image*int64(c.InChannels+c.OutChannels)
	return floatBytes * (int64(batch)*(block+inputs) + 2*all*int64(c.HeadDim))
}
