package device

import "github.com/triptych-serving/triptych/engine/tensor"

// The methods below check the operands of one op, make its output array and append it.
// The Out field of the argument is ignored.

// Gemm records op and returns Out.
func (t *Tape) Gemm(op Gemm) Array {
	if t.adapted[op.W] != nil {
		return t.adaptedGemm(op)
	}
	return t.gemm(op)
}

func (t *Tape) gemm(op Gemm) Array {
	if t.err != nil {
		return Array{}
	}
	w := t.manifest.At(op.W)
	k := last(op.X)
	if w.Layout != Matrix || w.Shape[1] != k {
		t.fail("gemm "+w.Name, "x %v does not match weight %v", op.X.Shape, w.Shape)
		return Array{}
	}
	if !t.smooth("gemm", op.Act) {
		return Array{}
	}
	for _, term := range op.Terms {
		if p := t.manifest.At(term.W); p.Layout != Matrix || p.Shape[0] != w.Shape[0] || !term.X.Shape.Equal(withLast(op.X.Shape, p.Shape[1])) {
			t.fail("gemm "+w.Name, "a term of %v and weight %s %v beside x %v", term.X.Shape, p.Name, p.Shape, op.X.Shape)
			return Array{}
		}
	}
	out := withLast(op.X.Shape, w.Shape[0])
	if !t.vector("gemm", op.Bias, w.Shape[0]) || !t.same("gemm "+w.Name, "residual", op.Residual, out) {
		return Array{}
	}
	op.Out = t.array(out...)
	return t.push(&op, op.Out)
}

// Conv2D records op and returns Out.
func (t *Tape) Conv2D(op Conv2D) Array {
	if t.adapted[op.W] != nil {
		return t.adaptedConv2D(op)
	}
	return t.conv2D(op)
}

func (t *Tape) conv2D(op Conv2D) Array {
	if t.err != nil {
		return Array{}
	}
	w := t.manifest.At(op.W)
	name := "conv2d " + w.Name
	channels := 0
	for _, x := range op.Inputs() {
		if len(x.Shape) == 4 && withLast(x.Shape, 1).Equal(withLast(op.X.Shape, 1)) {
			channels += x.Shape[3]
		}
	}
	if w.Layout != Filter || channels != w.Shape[1] {
		t.fail(name, "x %v (want [B, H, W, I]) and %d more do not match weight %v", op.X.Shape, len(op.More), w.Shape)
		return Array{}
	}
	if (op.Act == PReLU) != op.Slopes.Present() || op.Act > PReLU || op.Act != None && op.Scale != 0 || !t.vector(name, op.Slopes, w.Shape[0]) {
		t.fail(name, "activation %d with slopes: %v, and scale %v: slopes are of PReLU, a scale of no activation", op.Act, op.Slopes.Present(), op.Scale)
		return Array{}
	}
	if bottom, right := op.CropBottom, op.CropRight; bottom|right != 0 && (!op.Upsample || bottom|right != 1) {
		t.fail(name, "crop of %d rows and %d columns, want 0 or 1 of an enlarged image", bottom, right)
		return Array{}
	}
	h, wd := op.Read()
	if op.Stride < 1 || h+op.Top+op.Bottom < w.Shape[2] || wd+op.Left+op.Right < w.Shape[3] {
		t.fail(name, "x %v is too small for weight %v with stride %d", op.X.Shape, w.Shape, op.Stride)
		return Array{}
	}
	oh := (h+op.Top+op.Bottom-w.Shape[2])/op.Stride + 1
	ow := (wd+op.Left+op.Right-w.Shape[3])/op.Stride + 1
	out := tensor.Shape{op.X.Shape[0], oh, ow, w.Shape[0]}
	if !t.vector(name, op.Bias, w.Shape[0]) || !t.same(name, "residual", op.Residual, out) {
		return Array{}
	}
	if p := op.PerImage; p.Present() && (len(p.Shape) != 2 || p.Shape[1] != w.Shape[0] || (p.Shape[0] != 1 && p.Shape[0] != out[0])) {
		t.fail(name, "per-image vector %v, want [%d, %d] or [1, %d]", p.Shape, out[0], out[3], out[3])
		return Array{}
	}
	op.Out = t.array(out...)
	return t.push(&op, op.Out)
}

// GroupNorm records op and returns Out.
func (t *Tape) GroupNorm(op GroupNorm) Array {
	if t.adapted[op.Gamma] != nil {
		return t.adaptedGroupNorm(op)
	}
	return t.groupNorm(op)
}

func (t *Tape) groupNorm(op GroupNorm) Array {
	if t.err != nil {
		return Array{}
	}
	c := last(op.X)
	if op.Groups < 1 || c%op.Groups != 0 {
		t.fail("group_norm", "%d channels in %d groups", c, op.Groups)
		return Array{}
	}
	if !t.smooth("group_norm", op.Act) {
		return Array{}
	}
	if !t.vector("group_norm", op.Gamma, c) || !t.vector("group_norm", op.Beta, c) {
		return Array{}
	}
	op.Out = t.array(op.X.Shape...)
	return t.push(&op, op.Out)
}

// LayerNorm records op and returns Out.
func (t *Tape) LayerNorm(op LayerNorm) Array {
	if t.adapted[op.Gamma] != nil {
		return t.adaptedLayerNorm(op)
	}
	return t.layerNorm(op)
}

func (t *Tape) layerNorm(op LayerNorm) Array {
	if t.err != nil {
		return Array{}
	}
	c := last(op.X)
	if !t.vector("layer_norm", op.Gamma, c) || !t.vector("layer_norm", op.Beta, c) {
		return Array{}
	}
	op.Out = t.array(op.X.Shape...)
	return t.push(&op, op.Out)
}

// Attention records op and returns Out.
func (t *Tape) Attention(op Attention) Array {
	if t.err != nil {
		return Array{}
	}
	q, k := op.Q.Shape, op.K.Shape
	if len(q) != 3 || len(k) != 3 || q[0] != k[0] || q[2] != k[2] || !k.Equal(op.V.Shape) || op.Heads < 1 || q[2]%op.Heads != 0 {
		t.fail("attention", "q %v, k %v, v %v with %d heads", q, k, op.V.Shape, op.Heads)
		return Array{}
	}
	op.Out = t.array(q...)
	return t.push(&op, op.Out)
}

// GEGLU records op and returns Out.
func (t *Tape) GEGLU(op GEGLU) Array {
	if t.err != nil {
		return Array{}
	}
	c := last(op.X)
	if c%2 != 0 {
		t.fail("geglu", "x %v has an odd last dimension", op.X.Shape)
		return Array{}
	}
	op.Out = t.array(withLast(op.X.Shape, c/2)...)
	return t.push(&op, op.Out)
}

// Embed records op and returns Out.
func (t *Tape) Embed(op Embed) Array {
	if t.err != nil {
		return Array{}
	}
	tok := t.manifest.At(op.Tokens)
	s := op.IDs.Shape
	if len(s) != 2 || tok.Layout != Table {
		t.fail("embed "+tok.Name, "ids %v, tokens %v", s, tok.Shape)
		return Array{}
	}
	if op.Positions.Present() {
		if pos := t.manifest.At(op.Positions); pos.Layout != Table || tok.Shape[1] != pos.Shape[1] || s[1] > pos.Shape[0] {
			t.fail("embed "+tok.Name, "ids %v, tokens %v, positions %v", s, tok.Shape, pos.Shape)
			return Array{}
		}
	}
	if e := op.Extra; e.Present() && (len(e.Shape) != 2 || e.Shape[1] != tok.Shape[1]) {
		t.fail("embed "+tok.Name, "extra rows %v, want [any, %d]", e.Shape, tok.Shape[1])
		return Array{}
	}
	op.Out = t.array(s[0], s[1], tok.Shape[1])
	return t.push(&op, op.Out)
}

// Concat records op and returns Out.
func (t *Tape) Concat(op Concat) Array {
	if t.err != nil {
		return Array{}
	}
	out := withLast(op.A.Shape, last(op.A)+last(op.B))
	if !withLast(op.A.Shape, 1).Equal(withLast(op.B.Shape, 1)) {
		t.fail("concat", "%v and %v", op.A.Shape, op.B.Shape)
		return Array{}
	}
	op.Out = t.array(out...)
	return t.push(&op, op.Out)
}

// Activate records op and returns Out.
func (t *Tape) Activate(op Activate) Array {
	if t.err != nil {
		return Array{}
	}
	if op.Act >= PReLU {
		t.fail("activate", "activation %d, want one without slopes", op.Act)
		return Array{}
	}
	op.Out = t.array(op.X.Shape...)
	return t.push(&op, op.Out)
}

// Axpy records op and returns Out.
func (t *Tape) Axpy(op Axpy) Array {
	if t.err != nil || !t.same("axpy", "y", op.Y, op.X.Shape) {
		return Array{}
	}
	if !op.Y.Present() || op.X.ID == op.Y.ID {
		t.fail("axpy", "y is no array beside x")
		return Array{}
	}
	op.Out = t.array(op.X.Shape...)
	return t.push(&op, op.Out)
}

// Affine records op and returns Out.
func (t *Tape) Affine(op Affine) Array {
	if t.err != nil {
		return Array{}
	}
	elems := func(a Array) int {
		n, _ := a.Shape.Elems()
		return n
	}
	if c := last(op.X); op.Mul.Present() && elems(op.Mul) != 1 || op.Add.Present() && elems(op.Add) != c || !op.Mul.Present() && !op.Add.Present() {
		t.fail("affine", "mul %v and add %v, want [1] and [%d], or one of them", op.Mul.Shape, op.Add.Shape, c)
		return Array{}
	}
	op.Out = t.array(op.X.Shape...)
	return t.push(&op, op.Out)
}

// smooth refuses activations that are for Conv2D and Activate alone.
func (t *Tape) smooth(op string, a Activation) bool {
	if a.Rectifies() {
		t.fail(op, "activation %d, want one up to %d", a, QuickGELU)
		return false
	}
	return true
}

func (t *Tape) vector(op string, w Weight, n int) bool {
	if !w.Present() {
		return true
	}
	if p := t.manifest.At(w); p.Layout != Vector || p.Shape[0] != n {
		t.fail(op, "%s %v, want [%d]", p.Name, p.Shape, n)
		return false
	}
	return true
}

func (t *Tape) same(op, what string, a Array, want tensor.Shape) bool {
	if a.Present() && !a.Shape.Equal(want) {
		t.fail(op, "%s %v, want %v", what, a.Shape, want)
		return false
	}
	return true
}

func last(a Array) int { return a.Shape[len(a.Shape)-1] }

func withLast(s tensor.Shape, n int) tensor.Shape {
	out := append(tensor.Shape(nil), s...)
	out[len(out)-1] = n
	return out
}
