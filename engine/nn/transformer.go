package nn

import "github.com/triptych-serving/triptych/engine/device"

// The epsilons of a spatial transformer are fixed in diffusers: 1e-6 for its entry norm, 1e-5 for
// the layer norms of its blocks. No config changes them.
const (
	transformerNormEps = 1e-6
	layerNormEps       = 1e-5
)

// Transformer2D runs transformer blocks over the pixels of a feature map, with a norm and a
// projection before, a projection and a residual behind (diffusers Transformer2DModel; the
// SpatialTransformer of Rombach et al. 2022, arXiv 2112.10752).
type Transformer2D struct {
	norm    GroupNorm
	projIn  Linear
	blocks  []TransformerBlock
	projOut Linear
}

// NewTransformer2D declares layers blocks over channels with heads heads (which divide channels),
// attending to states of width context. The projections may be stored as linear layers or as 1x1
// convolutions, which compute the same.
func NewTransformer2D(s *Scope, channels, context, heads, layers, groups int) Transformer2D {
	m := Transformer2D{
		norm:   NewGroupNorm(s.Sub("norm"), channels, groups, transformerNormEps),
		projIn: NewLinear(s.Sub("proj_in"), channels, channels),
	}
	for i := range layers {
		m.blocks = append(m.blocks, NewTransformerBlock(s.Index("transformer_blocks", i), channels, context, heads))
	}
	m.projOut = NewLinear(s.Sub("proj_out"), channels, channels)
	return m
}

// Blocks is how many transformer blocks it has.
func (m Transformer2D) Blocks() int { return len(m.blocks) }

// Forward maps x [B, H, W, channels] to the same, under context [B, T, context]. image, if there are any, are keys and
// values for the attention to the context of each block, see Attention.ForwardBeside.
func (m Transformer2D) Forward(t *device.Tape, x, context device.Array, image ...KeyValues) device.Array {
	if t.Err() != nil {
		return device.Array{}
	}
	b, h, w, c := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
	y := m.projIn.Forward(t, t.Reshape(m.norm.Forward(t, x, device.None), b, h*w, c))
	for i, block := range m.blocks {
		var beside KeyValues
		if len(image) > 0 {
			beside = image[i]
		}
		y = block.Forward(t, y, context, beside)
	}
	return t.Reshape(m.projOut.Add(t, y, t.Reshape(x, b, h*w, c)), b, h, w, c)
}

// TransformerBlock is self-attention, cross-attention and a gated feed forward, each behind a layer
// norm and around a residual (diffusers BasicTransformerBlock).
type TransformerBlock struct {
	norm1, norm2, norm3 LayerNorm
	attn1, attn2        Attention
	ff                  FeedForward
}

// NewTransformerBlock declares a block of width dim under states of width context.
func NewTransformerBlock(s *Scope, dim, context, heads int) TransformerBlock {
	return TransformerBlock{
		norm1: NewLayerNorm(s.Sub("norm1"), dim, layerNormEps),
		attn1: NewAttention(s.Sub("attn1"), dim, dim, heads),
		norm2: NewLayerNorm(s.Sub("norm2"), dim, layerNormEps),
		attn2: NewAttention(s.Sub("attn2"), dim, context, heads),
		norm3: NewLayerNorm(s.Sub("norm3"), dim, layerNormEps),
		ff:    NewFeedForward(s.Sub("ff"), dim),
	}
}

// Forward maps x [B, N, dim] to the same, under context [B, T, context] and what is beside it, if anything.
func (b TransformerBlock) Forward(t *device.Tape, x, context device.Array, beside KeyValues) device.Array {
	h := b.norm1.Forward(t, x)
	x = b.attn1.Forward(t, h, h, x)
	x = b.attn2.ForwardBeside(t, b.norm2.Forward(t, x), context, x, beside)
	return b.ff.Add(t, b.norm3.Forward(t, x), x)
}
