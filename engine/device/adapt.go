package device

import "slices"

// Adaptation is what an adapter has beside a parameter W of ops: an op that has W computes with W + D, in parts, so that there is no
// changed copy of W. Weights are those that the tape's ops name (Tape.Further).
type Adaptation struct {
	// Down, Mid and Up, of which Mid may be left out, make D = Up Mid Down (Hu et al. 2021, arXiv 2106.09685): Down and Mid Matrix [r, K] and
	// [r, r], Up Matrix [N, r]. Of a Conv2D one of Down and Mid may be a Filter of W's height and width instead, or else W has but
	// one place.
	Down, Mid, Up Weight
	// Added is D itself, as large as W; AddedBias or none is added to the op's bias. Of a GroupNorm or LayerNorm, whose W is Gamma, these
	// are added to Gamma and Beta; both are there.
	Added, AddedBias Weight
	// Scale [1] multiplies D and AddedBias: an input, since a request decides it.
	Scale Array
}

// Adapt has ops that are recorded from now on compute with a parameter and what is added to it. Several add up.
func (t *Tape) Adapt(w Weight, a Adaptation) {
	if t.adapted == nil {
		t.adapted = map[Weight][]Adaptation{}
	}
	t.adapted[w] = append(t.adapted[w], a)
}

// product is an op that is linear in x, but for its bias: with other operands.
type product func(x Array, w, bias Weight) Array

// adapt adds to out, which an op made of x, what adaptations of its weight make of x.
func (t *Tape) adapt(out, x Array, adaptations []Adaptation, of product) Array {
	for _, a := range adaptations {
		if a.Added.Present() {
			out = t.plus(t.times(of(x, a.Added, a.AddedBias), a.Scale), out)
		} else {
			out = t.gemm(Gemm{X: t.low(x, a, of), W: a.Up, Residual: out})
		}
	}
	return out
}

// low is what an adaptation of low rank makes of x, before Up.
func (t *Tape) low(x Array, a Adaptation, of product) Array {
	h := of(x, a.Down, Weight{})
	if a.Mid.Present() {
		h = of(h, a.Mid, Weight{})
	}
	return t.times(h, a.Scale)
}

func (t *Tape) times(x, by Array) Array {
	if t.err != nil {
		return x
	}
	return t.Affine(Affine{X: x, Mul: by})
}

func (t *Tape) plus(x, y Array) Array { return t.Axpy(Axpy{A: 1, X: x, Y: y}) }

// finish applies what an op does behind its sum, where the sum was changed.
func (t *Tape) finish(out Array, act Activation, residual Array) Array {
	if act == None {
		return out
	}
	out = t.Activate(Activate{X: out, Act: act})
	if residual.Present() {
		out = t.plus(residual, out)
	}
	return out
}

// adaptedGemm is Gemm with an adapted W. Products of low rank are terms of it.
func (t *Tape) adaptedGemm(op Gemm) Array {
	product := func(x Array, w, bias Weight) Array { return t.gemm(Gemm{X: x, W: w, Bias: bias}) }
	var dense []Adaptation
	op.Terms = slices.Clone(op.Terms)
	for _, a := range t.adapted[op.W] {
		if a.Added.Present() {
			dense = append(dense, a)
			continue
		}
		op.Terms = append(op.Terms, Term{X: t.low(op.X, a, product), W: a.Up})
	}
	if dense == nil {
		return t.gemm(op)
	}
	own := op
	if own.Act = None; op.Act != None {
		own.Residual = Array{}
	}
	return t.finish(t.adapt(t.gemm(own), op.X, dense, product), op.Act, op.Residual)
}

// adaptedConv2D is Conv2D with an adapted W.
func (t *Tape) adaptedConv2D(op Conv2D) Array {
	if t.err == nil && (len(op.More) > 0 || op.Act.Rectifies() || op.Scale != 0) {
		t.fail("conv2d "+t.manifest.At(op.W).Name, "an adapter beside several inputs, slopes or a scale")
		return Array{}
	}
	own := op
	if own.Act = None; op.Act != None {
		own.Residual = Array{}
	}
	out := t.adapt(t.conv2D(own), op.X, t.adapted[op.W], func(x Array, w, bias Weight) Array {
		if t.err == nil && t.manifest.At(w).Layout == Matrix { // of each place, before or behind a filter
			return t.gemm(Gemm{X: x, W: w, Bias: bias})
		}
		like := op
		like.X, like.W, like.Bias, like.Residual, like.PerImage, like.Act = x, w, bias, Array{}, Array{}, None
		return t.conv2D(like)
	})
	return t.finish(out, op.Act, op.Residual)
}

// adaptedGroupNorm is GroupNorm with an adapted Gamma.
func (t *Tape) adaptedGroupNorm(op GroupNorm) Array {
	own := op
	own.Act = None
	out := t.adapt(t.groupNorm(own), op.X, t.adapted[op.Gamma], func(x Array, w, bias Weight) Array {
		like := own
		like.X, like.Gamma, like.Beta = x, w, bias
		return t.groupNorm(like)
	})
	return t.finish(out, op.Act, Array{})
}

// adaptedLayerNorm is LayerNorm with an adapted Gamma.
func (t *Tape) adaptedLayerNorm(op LayerNorm) Array {
	return t.adapt(t.layerNorm(op), op.X, t.adapted[op.Gamma], func(x Array, w, bias Weight) Array {
		like := op
		like.X, like.Gamma, like.Beta = x, w, bias
		return t.layerNorm(like)
	})
}
