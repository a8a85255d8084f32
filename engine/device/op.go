package device

import "github.com/triptych-serving/triptych/engine/tensor"

// Array names a value on a tape. Arrays with the same ID share storage (see Tape.Reshape).
type Array struct {
	ID    int
	Shape tensor.Shape
}

// Present reports whether the array was set: optional operands are left zero.
func (a Array) Present() bool { return a.ID != 0 }

// Activation is a pointwise function fused behind an op.
type Activation uint8

// The activations, by their names in the field. GELU is the exact form with erf.
const (
	None Activation = iota
	SiLU
	GELU
	QuickGELU // x * sigmoid(1.702 x)
	// Of the following x is multiplied by a slope where it is below 0. They are for Conv2D and Activate alone.
	ReLU      // 0
	LeakyReLU // LeakySlope
	PReLU     // one for each channel, Conv2D.Slopes
)

// LeakySlope is that of LeakyReLU.
const LeakySlope = 0.2

// Rectifies reports whether an activation is one of those with a slope.
func (a Activation) Rectifies() bool { return a >= ReLU }

// Op is one computation on a tape: a plain struct of operands and settings. The method gives
// planners and executors the arrays it touches; out is always written whole.
type Op interface {
	operands() (in []Array, out Array)
}

// inPlace is the operand that an op may overwrite with its result: no element of the result is written before
// everything that reads its place has been read.
func inPlace(op Op) (in Array, ok bool) {
	switch o := op.(type) {
	case *GroupNorm:
		return o.X, true
	case *LayerNorm:
		return o.X, true
	case *Activate:
		return o.X, true
	case *Axpy:
		return o.X, true
	case *Affine:
		return o.X, true
	}
	return Array{}, false
}

// Gemm is Out = act(X * W^T + Terms + Bias) + Residual, over the last dimension of X.
// X [..., K], W Matrix [N, K], Bias Vector [N], Residual and Out [..., N].
type Gemm struct {
	X        Array
	W, Bias  Weight
	Terms    []Term
	Act      Activation
	Residual Array
	Out      Array
}

// Term is a product beside another one, X * W^T, which has its rows and columns: X [..., R], W Matrix [N, R]. W is not streamed.
type Term struct {
	X Array
	W Weight
}

// Conv2D is a 2-D convolution, Out = Scale * act(conv(X) + Bias + PerImage) + Residual.
// X [B, H, W, I], W Filter [O, I, kh, kw], Out [B, H', W', O].
type Conv2D struct {
	X                        Array
	More                     []Array // of X's size, their channels behind those of X: I is the sum
	W, Bias                  Weight
	Stride                   int
	Top, Left, Bottom, Right int   // zero padding
	Upsample                 bool  // read X as if enlarged 2x by nearest neighbour first
	CropBottom, CropRight    int   // rows and columns of the enlarged X that are left out: 0 or 1
	PerImage                 Array // optional [B, O] or [1, O], added to every pixel: the time embedding
	Act                      Activation
	Slopes                   Weight  // Vector [O], of PReLU alone
	Scale                    float32 // 0 is 1; others only without Act
	Residual                 Array
	Out                      Array
}

// Inputs are X and More.
func (o *Conv2D) Inputs() []Array { return append([]Array{o.X}, o.More...) }

// Read is the height and width of X as the filter sees it, without the padding.
func (o *Conv2D) Read() (h, w int) {
	h, w = o.X.Shape[1], o.X.Shape[2]
	if o.Upsample {
		h, w = 2*h-o.CropBottom, 2*w-o.CropRight
	}
	return h, w
}

// GroupNorm normalises each image over pixels and groups of channels, then applies act.
// X, Out [B, ..., C]; Gamma, Beta Vector [C]. Wu and He 2018, arXiv 1803.08494.
type GroupNorm struct {
	X           Array
	Gamma, Beta Weight
	Groups      int
	Eps         float32
	Act         Activation
	Out         Array
}

// LayerNorm normalises over the last dimension. X, Out [..., C]. Ba et al. 2016, arXiv 1607.06450.
type LayerNorm struct {
	X           Array
	Gamma, Beta Weight
	Eps         float32
	Out         Array
}

// Attention is softmax(Q K^T / sqrt(d)) V for each head, heads being slices of the last
// dimension. Q, Out [B, Tq, heads*d]; K, V [B, Tk, heads*d]. Vaswani et al. 2017, arXiv 1706.03762.
type Attention struct {
	Q, K, V Array
	Heads   int
	Causal  bool // position i sees positions <= i
	Out     Array
}

// GEGLU is Out = X[..., :n] * GELU(X[..., n:]). X [..., 2n]. Shazeer 2020, arXiv 2002.05202.
type GEGLU struct {
	X, Out Array
}

// Embed gathers rows: Out[b, t] = Tokens[ids[b, t]] + Positions[t], which may be left out. IDs is an id input [B, T]. With Extra [E, dim],
// ids behind the last row of Tokens are rows of Extra.
type Embed struct {
	IDs               Array
	Tokens, Positions Weight
	Extra             Array
	Out               Array
}

// Rows is how many rows ids may name.
func (o *Embed) Rows(m *Manifest) int {
	rows := m.At(o.Tokens).Shape[0]
	if o.Extra.Present() {
		rows += o.Extra.Shape[0]
	}
	return rows
}

// Concat joins two arrays along channels. A [..., a], B [..., b], Out [..., a+b].
type Concat struct {
	A, B, Out Array
}

// Activate is Out = act(X).
type Activate struct {
	X   Array
	Act Activation
	Out Array
}

// Axpy is Out = A * X + Y, all of one shape; X and Y are two arrays.
type Axpy struct {
	A         float32
	X, Y, Out Array
}

// Affine is Out = Mul * X + Add, of arrays that a request decides: Mul [1] or Add [C], or both. X, Out [..., C].
type Affine struct {
	X, Mul, Add, Out Array
}

func (o *Gemm) operands() ([]Array, Array) {
	in := []Array{o.X, o.Residual}
	for _, term := range o.Terms {
		in = append(in, term.X)
	}
	return in, o.Out
}

func (o *Conv2D) operands() ([]Array, Array) {
	return append([]Array{o.X, o.PerImage, o.Residual}, o.More...), o.Out
}

func (o *GroupNorm) operands() ([]Array, Array) {
	return []Array{o.X}, o.Out
}
func (o *LayerNorm) operands() ([]Array, Array) { return []Array{o.X}, o.Out }
func (o *Attention) operands() ([]Array, Array) { return []Array{o.Q, o.K, o.V}, o.Out }
func (o *GEGLU) operands() ([]Array, Array)     { return []Array{o.X}, o.Out }
func (o *Embed) operands() ([]Array, Array)     { return []Array{o.IDs, o.Extra}, o.Out }
func (o *Concat) operands() ([]Array, Array)    { return []Array{o.A, o.B}, o.Out }
func (o *Activate) operands() ([]Array, Array)  { return []Array{o.X}, o.Out }
func (o *Axpy) operands() ([]Array, Array)      { return []Array{o.X, o.Y}, o.Out }
func (o *Affine) operands() ([]Array, Array)    { return []Array{o.X, o.Mul, o.Add}, o.Out }
