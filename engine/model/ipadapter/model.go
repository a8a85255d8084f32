package ipadapter

import (
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// layerNormEps is torch's default, which no file changes.
const layerNormEps = 1e-5

// Model is a declared IP-Adapter.
type Model struct {
	cfg       Config
	proj      nn.Linear // of a plain one
	resampler *resampler
	norm      nn.LayerNorm
	keys      []nn.Linear
	values    []nn.Linear
}

// New declares the model's parameters on s; s.Finish(nil) tells what did not fit.
func New(s *nn.Scope, c Config) *Model {
	m, p := &Model{cfg: c}, s.Sub(projection)
	if c.Resampler != nil {
		m.resampler = newResampler(p, c)
		m.norm = nn.NewLayerNorm(p.Sub("norm_out"), c.ContextDim, layerNormEps)
	} else {
		m.proj = nn.NewLinear(p.Sub("proj"), c.ImageDim, c.Tokens*c.ContextDim)
		m.norm = nn.NewLayerNorm(p.Sub("norm"), c.ContextDim, layerNormEps)
	}
	for _, a := range c.Attentions {
		at := s.Index(attentions, a.Number)
		m.keys = append(m.keys, nn.NewLinearNoBias(at.Sub("to_k_ip"), c.ContextDim, a.Width))
		m.values = append(m.values, nn.NewLinearNoBias(at.Sub("to_v_ip"), c.ContextDim, a.Width))
	}
	return m
}

// Tokens maps embeddings of pictures [B, 1, ImageDim] or, with a resampler, states [B, T, ImageDim] to tokens [B, Tokens,
// ContextDim]. Of a resampler, queries are ids [B, Tokens] from 0 on; else none.
func (m *Model) Tokens(t *device.Tape, pictures, queries device.Array) device.Array {
	if t.Err() != nil {
		return device.Array{}
	}
	x := pictures
	if m.resampler != nil {
		x = m.resampler.forward(t, pictures, queries)
	} else {
		x = t.Reshape(m.proj.Forward(t, x), x.Shape[0], m.cfg.Tokens, m.cfg.ContextDim)
	}
	return m.norm.Forward(t, x)
}

// KeyValues are those of tokens for each of Config.Attentions.
func (m *Model) KeyValues(t *device.Tape, tokens device.Array) (out []nn.KeyValues) {
	for i := range m.keys {
		out = append(out, nn.KeyValues{K: m.keys[i].Forward(t, tokens), V: m.values[i].Forward(t, tokens)})
	}
	return out
}

// resampler has queries of its own look at the states of a picture, and at themselves, layer by layer.
type resampler struct {
	in, out nn.Linear
	queries device.Weight
	layers  []perceiver
}

// perceiver is one of its layers: attention and a feed forward, each behind a norm and around a residual.
type perceiver struct {
	states, queries, norm nn.LayerNorm
	q, out, up, down      nn.Linear
	k, v                  device.Weight // rows of one stored tensor
	heads                 int
}

func newResampler(s *nn.Scope, c Config) *resampler {
	w, r := c.Resampler.Width, c.Resampler
	m := &resampler{
		in: nn.NewLinear(s.Sub("proj_in"), c.ImageDim, w), queries: s.Table("latents", c.Tokens, w, 1, c.Tokens, w),
	}
	for i := range r.Layers {
		a, f := s.Index("layers", i).Sub("0"), s.Index("layers", i).Sub("1")
		rows := func(name string, first int) device.Weight {
			return a.Assemble(name, device.Matrix, tensor.Shape{r.Inner, w}, device.Slice{Name: "to_kv.weight", FirstRow: first, Rows: r.Inner})
		}
		m.layers = append(m.layers, perceiver{
			states: nn.NewLayerNorm(a.Sub("norm1"), w, layerNormEps), queries: nn.NewLayerNorm(a.Sub("norm2"), w, layerNormEps),
			q: nn.NewLinearNoBias(a.Sub("to_q"), w, r.Inner), k: rows("k", 0), v: rows("v", r.Inner), out: nn.NewLinearNoBias(a.Sub("to_out"), r.Inner, w),
			norm: nn.NewLayerNorm(f.Sub("0"), w, layerNormEps), up: nn.NewLinearNoBias(f.Sub("1"), w, r.FeedForward),
			down: nn.NewLinearNoBias(f.Sub("3"), r.FeedForward, w), heads: r.Inner / HeadSize,
		})
	}
	m.out = nn.NewLinear(s.Sub("proj_out"), w, c.ContextDim)
	return m
}

func (m *resampler) forward(t *device.Tape, states, ids device.Array) device.Array {
	x, q := m.in.Forward(t, states), t.Embed(device.Embed{IDs: ids, Tokens: m.queries})
	for _, l := range m.layers {
		q = l.forward(t, x, q)
	}
	return m.out.Forward(t, q)
}

func (l perceiver) forward(t *device.Tape, x, q device.Array) device.Array {
	states, queries := l.states.Forward(t, x), l.queries.Forward(t, q)
	if t.Err() != nil {
		return device.Array{}
	}
	b, n, m, w := x.Shape[0], x.Shape[1], q.Shape[1], q.Shape[2]
	seen := t.Concat(device.Concat{A: t.Reshape(states, b, n*w), B: t.Reshape(queries, b, m*w)}) // token behind token
	seen = t.Reshape(seen, b, n+m, w)
	h := t.Attention(device.Attention{
		Q: l.q.Forward(t, queries), K: t.Gemm(device.Gemm{X: seen, W: l.k}), V: t.Gemm(device.Gemm{X: seen, W: l.v}), Heads: l.heads,
	})
	q = l.out.Add(t, h, q)
	return l.down.Add(t, l.up.Act(t, l.norm.Forward(t, q), device.GELU), q)
}
