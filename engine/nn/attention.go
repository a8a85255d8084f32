package nn

import "github.com/triptych-serving/triptych/engine/device"

// Attention is multi-head attention with its four projections. Vaswani et al. 2017,
// arXiv 1706.03762.
type Attention struct {
	q, k, v, out Linear
	heads        int
	causal       bool
}

// NewAttention declares the attention of a diffusers transformer block: to_q, to_k and to_v
// without bias, to_out.0 with one. Queries come from [.., dim], keys and values from [.., context].
func NewAttention(s *Scope, dim, context, heads int) Attention {
	return Attention{
		q: NewLinearNoBias(s.Sub("to_q"), dim, dim), k: NewLinearNoBias(s.Sub("to_k"), context, dim),
		v: NewLinearNoBias(s.Sub("to_v"), context, dim), out: NewLinear(s.Sub("to_out.0"), dim, dim),
		heads: heads,
	}
}

// NewCausalAttention declares the attention of transformers' CLIP: q_proj, k_proj, v_proj and
// out_proj, all with bias; a token sees itself and those before it.
func NewCausalAttention(s *Scope, dim, heads int) Attention {
	a := newBiased(s, dim, "q_proj", "k_proj", "v_proj", "out_proj")
	a.heads, a.causal = heads, true
	return a
}

// Bidirectional is the attention in which a token sees those behind it too.
func (a Attention) Bidirectional() Attention {
	a.causal = false
	return a
}

func newBiased(s *Scope, dim int, q, k, v, out string) Attention {
	return Attention{
		q: NewLinear(s.Sub(q), dim, dim), k: NewLinear(s.Sub(k), dim, dim),
		v: NewLinear(s.Sub(v), dim, dim), out: NewLinear(s.Sub(out), dim, dim),
		heads: 1,
	}
}

// KeyValues are keys and values [B, S, dim] that are not projected by the attention itself, or none.
type KeyValues struct{ K, V device.Array }

// Forward attends from x [B, T, dim] to context [B, S, context] (x itself for self-attention) and
// adds residual [B, T, dim].
func (a Attention) Forward(t *device.Tape, x, context, residual device.Array) device.Array {
	return a.ForwardBeside(t, x, context, residual, KeyValues{})
}

// ForwardBeside is Forward, with what the same queries find among other keys and values added before the last projection:
// decoupled cross-attention (Ye et al. 2023, arXiv 2308.06721).
func (a Attention) ForwardBeside(t *device.Tape, x, context, residual device.Array, beside KeyValues) device.Array {
	q := a.q.Forward(t, x)
	h := t.Attention(device.Attention{
		Q: q, K: a.k.Forward(t, context), V: a.v.Forward(t, context),
		Heads: a.heads, Causal: a.causal,
	})
	if beside.K.Present() {
		h = t.Axpy(device.Axpy{A: 1, X: h, Y: t.Attention(device.Attention{Q: q, K: beside.K, V: beside.V, Heads: a.heads})})
	}
	return a.out.Add(t, h, residual)
}

// PixelAttention is single-head self-attention between the pixels of a feature map, with its own
// norm and residual: the middle of an autoencoder (diffusers Attention built from its deprecated
// AttentionBlock).
type PixelAttention struct {
	norm GroupNorm
	attn Attention
}

// NewPixelAttention declares group_norm and the projections, which files written before
// diffusers 0.15 name query, key, value and proj_attn.
func NewPixelAttention(s *Scope, channels, groups int, eps float32) PixelAttention {
	p := PixelAttention{norm: NewGroupNorm(s.Sub("group_norm"), channels, groups, eps)}
	if s.Has("query.weight") {
		p.attn = newBiased(s, channels, "query", "key", "value", "proj_attn")
	} else {
		p.attn = newBiased(s, channels, "to_q", "to_k", "to_v", "to_out.0")
	}
	return p
}

// Forward maps [B, H, W, channels] to the same.
func (p PixelAttention) Forward(t *device.Tape, x device.Array) device.Array {
	if t.Err() != nil {
		return device.Array{}
	}
	b, h, w, c := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
	tokens := t.Reshape(p.norm.Forward(t, x, device.None), b, h*w, c)
	y := p.attn.Forward(t, tokens, tokens, t.Reshape(x, b, h*w, c))
	return t.Reshape(y, b, h, w, c)
}
