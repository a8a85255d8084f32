package devicetest

import (
	"fmt"
	"math"
	"slices"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// definition runs a tape in the plainest way there is, in float64: the definition of every op, with
// nothing blocked, planned or shared. Where it agrees with a reference and a device does not, the
// device is wrong; where both disagree, the network is.
type definition struct {
	compute  device.Compute
	manifest *device.Manifest
	weights  map[int][]float64 // by index in the manifest
	arrays   map[int][]float64 // by array ID
}

// Evaluate computes the outputs of a tape by definition. Parameters come from src, inputs (ids too, as
// whole numbers) and outputs go by name. The error is the tape's or the source's.
func Evaluate(tape *device.Tape, src device.Source, inputs map[string][]float32) (map[string][]float32, error) {
	return EvaluateIn(device.ComputeF32, tape, src, inputs)
}

// EvaluateIn is Evaluate with the factors of products rounded to a type; products and sums are float64 all the same.
func EvaluateIn(c device.Compute, tape *device.Tape, src device.Source, inputs map[string][]float32) (map[string][]float32, error) {
	if err := tape.Err(); err != nil {
		return nil, err
	}
	x := &definition{compute: c, manifest: tape.Manifest(), weights: map[int][]float64{}, arrays: map[int][]float64{}}
	for i, p := range x.manifest.Params {
		f, err := parameter(&p, src)
		if err != nil {
			return nil, fmt.Errorf("parameter %s: %w", p.Name, err)
		}
		x.weights[i] = f
	}
	for _, in := range tape.Inputs() {
		x.arrays[in.Array.ID] = widen(inputs[in.Name])
	}
	for _, op := range tape.Ops() {
		if err := x.run(op); err != nil {
			return nil, err
		}
	}
	out := map[string][]float32{}
	for _, o := range tape.Outputs() {
		v := make([]float32, len(x.arrays[o.Array.ID]))
		for i, e := range x.arrays[o.Array.ID] {
			v[i] = float32(e)
		}
		out[o.Name] = v
	}
	return out, nil
}

// parameter is a parameter's values as they are kept.
func parameter(p *device.Param, src device.Source) ([]float64, error) {
	data, err := stored(p, src)
	if err != nil {
		return nil, err
	}
	elems, _ := p.Shape.Elems()
	values := make([]float32, elems)
	if err := tensor.Widen(values, p.DType, data); err != nil {
		return nil, err
	}
	v := widen(values)
	for output := range slices.Chunk(v, elems/p.Shape[0]) {
		switch p.Resident {
		case tensor.F16:
			roundTo(output, 11, -14)
		case tensor.BF16:
			roundTo(output, 8, -126)
		case tensor.I8:
			quantise(output, inOrder(len(output)), 127)
		case tensor.I4:
			in := p.Shape[1]
			taps, order := len(output)/in, inOrder(len(output))
			for i := range order {
				order[i] = i%in*taps + i/in
			}
			for group := range slices.Chunk(order, device.I4Group) {
				quantise(output, group, 7)
			}
		}
	}
	return v, nil
}

// factors are values, which a device has as float32, as they are multiplied.
func (n *definition) factors(v []float64) []float64 {
	if n.compute == device.ComputeBF16 {
		v = slices.Clone(v)
		for i, x := range v {
			v[i] = float64(float32(x))
		}
		roundTo(v, 8, -126)
	}
	return v
}

func inOrder(n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	return order
}

// roundTo rounds to so many significant bits, fewer below 2^least.
func roundTo(v []float64, bits, least int) {
	for i, x := range v {
		_, exponent := math.Frexp(x)
		unit := math.Ldexp(1, max(exponent-1, least)-bits+1)
		v[i] = math.RoundToEven(x/unit) * unit
	}
}

// quantise replaces the weights of a group by what device.Param.Resident says of integers.
func quantise(v []float64, group []int, limit float32) {
	most := 0.0
	for _, i := range group {
		most = max(most, math.Abs(v[i]))
	}
	scale := float32(most) / limit
	for _, i := range group {
		if scale < 0x1p-126 {
			v[i] = 0
			continue
		}
		v[i] = math.RoundToEven(float64(float32(v[i])/scale)) * float64(scale)
	}
}

func widen(f []float32) []float64 {
	v := make([]float64, len(f))
	for i, x := range f {
		v[i] = float64(x)
	}
	return v
}

func (n *definition) run(op device.Op) error {
	switch o := op.(type) {
	case *device.Gemm:
		n.arrays[o.Out.ID] = n.gemm(o)
	case *device.Conv2D:
		n.arrays[o.Out.ID] = n.conv(o)
	case *device.GroupNorm:
		n.arrays[o.Out.ID] = n.groupNorm(o)
	case *device.LayerNorm:
		n.arrays[o.Out.ID] = n.layerNorm(o)
	case *device.Attention:
		n.arrays[o.Out.ID] = n.attention(o)
	case *device.GEGLU:
		x, c := n.arrays[o.X.ID], lastDim(o.Out)
		out := make([]float64, len(x)/2)
		for i := range out {
			row := x[i/c*2*c:]
			out[i] = row[i%c] * activate(device.GELU, row[c+i%c])
		}
		n.arrays[o.Out.ID] = out
	case *device.Embed:
		tokens, positions, c := n.weight(o.Tokens), n.weight(o.Positions), lastDim(o.Out)
		var out []float64
		for i, id := range n.arrays[o.IDs.ID] {
			row := slices.Concat(tokens, n.arrays[o.Extra.ID])[int(id)*c:]
			for j := range c {
				v := row[j]
				if positions != nil {
					v += positions[i%o.IDs.Shape[1]*c+j]
				}
				out = append(out, v)
			}
		}
		n.arrays[o.Out.ID] = out
	case *device.Concat:
		a, b := lastDim(o.A), lastDim(o.B)
		var out []float64
		for i := range len(n.arrays[o.A.ID]) / a {
			out = append(append(out, n.arrays[o.A.ID][i*a:][:a]...), n.arrays[o.B.ID][i*b:][:b]...)
		}
		n.arrays[o.Out.ID] = out
	case *device.Activate:
		var out []float64
		for _, v := range n.arrays[o.X.ID] {
			out = append(out, activate(o.Act, v))
		}
		n.arrays[o.Out.ID] = out
	case *device.Axpy:
		var out []float64
		for i, v := range n.arrays[o.X.ID] {
			out = append(out, float64(o.A)*v+n.arrays[o.Y.ID][i])
		}
		n.arrays[o.Out.ID] = out
	case *device.Affine:
		var out []float64
		for i, v := range n.arrays[o.X.ID] {
			if o.Mul.Present() {
				v *= n.arrays[o.Mul.ID][0]
			}
			if o.Add.Present() {
				v += n.arrays[o.Add.ID][i%lastDim(o.X)]
			}
			out = append(out, v)
		}
		n.arrays[o.Out.ID] = out
	default:
		return fmt.Errorf("no definition of %T", op)
	}
	return nil
}

func lastDim(a device.Array) int { return a.Shape[len(a.Shape)-1] }

func activate(a device.Activation, x float64) float64 {
	switch a {
	case device.SiLU:
		return x / (1 + math.Exp(-x))
	case device.GELU:
		return 0.5 * x * (1 + math.Erf(x/math.Sqrt2))
	case device.QuickGELU:
		return x / (1 + math.Exp(-1.702*x))
	case device.ReLU:
		return max(0, x)
	case device.LeakyReLU:
		return rectify(x, float64(float32(device.LeakySlope)))
	}
	return x
}

func rectify(x, slope float64) float64 {
	if x < 0 {
		return x * slope
	}
	return x
}

// weight is the parameter's values, nil for none.
func (n *definition) weight(w device.Weight) []float64 {
	if !w.Present() {
		return nil
	}
	return n.weights[w.Index()]
}

// finish adds bias and per-image vector to a sum, activates, and adds the residual.
func (n *definition) finish(sum float64, i, c, image int, bias device.Weight, perImage, residual device.Array, act device.Activation) float64 {
	if bias.Present() {
		sum += n.weight(bias)[i%c]
	}
	if perImage.Present() {
		sum += n.arrays[perImage.ID][image%perImage.Shape[0]*c+i%c]
	}
	sum = activate(act, sum)
	if residual.Present() {
		sum += n.arrays[residual.ID][i]
	}
	return sum
}

func (n *definition) gemm(o *device.Gemm) []float64 {
	x, w := n.factors(n.arrays[o.X.ID]), n.factors(n.weight(o.W))
	k, c := lastDim(o.X), lastDim(o.Out)
	terms := make([][2][]float64, len(o.Terms))
	for j, term := range o.Terms {
		terms[j] = [2][]float64{n.factors(n.arrays[term.X.ID]), n.factors(n.weight(term.W))}
	}
	out := make([]float64, len(x)/k*c)
	for i := range out {
		sum := 0.0
		row := x[i/c*k:][:k]
		for l, v := range w[i%c*k:][:k] {
			sum += row[l] * v
		}
		for j, term := range o.Terms {
			r := lastDim(term.X)
			row := terms[j][0][i/c*r:][:r]
			for l, v := range terms[j][1][i%c*r:][:r] {
				sum += row[l] * v
			}
		}
		out[i] = n.finish(sum, i, c, 0, o.Bias, device.Array{}, o.Residual, o.Act)
	}
	return out
}

func (n *definition) conv(o *device.Conv2D) []float64 {
	var x []float64 // the inputs side by side
	for px := range len(n.arrays[o.X.ID]) / lastDim(o.X) {
		for _, a := range o.Inputs() {
			x = append(x, n.arrays[a.ID][px*lastDim(a):][:lastDim(a)]...)
		}
	}
	x = n.factors(x)
	w := n.factors(n.weight(o.W))
	shape := n.manifest.At(o.W).Shape
	in, kh, kw := shape[1], shape[2], shape[3]
	h, wd, scale := o.X.Shape[1], o.X.Shape[2], 1
	if o.Upsample {
		scale = 2
	}
	bottom, right := scale*h-o.CropBottom, scale*wd-o.CropRight
	s := o.Out.Shape
	out := make([]float64, s[0]*s[1]*s[2]*s[3])
	for i := range out {
		c, px := i%s[3], i/s[3]
		ox, oy, image := px%s[2], px/s[2]%s[1], px/s[2]/s[1]
		sum := 0.0
		for ky := range kh {
			for kx := range kw {
				y, xx := oy*o.Stride+ky-o.Top, ox*o.Stride+kx-o.Left
				if y < 0 || xx < 0 || y >= bottom || xx >= right {
					continue
				}
				pixel := x[((image*h+y/scale)*wd+xx/scale)*in:][:in]
				for l, v := range pixel {
					sum += v * w[((c*in+l)*kh+ky)*kw+kx]
				}
			}
		}
		out[i] = n.finish(sum, i, s[3], image, o.Bias, o.PerImage, device.Array{}, o.Act)
		if o.Act == device.PReLU {
			out[i] = rectify(out[i], n.weight(o.Slopes)[c])
		}
		if o.Scale != 0 {
			out[i] *= float64(o.Scale)
		}
		if o.Residual.Present() {
			out[i] += n.arrays[o.Residual.ID][i]
		}
	}
	return out
}

func (n *definition) groupNorm(o *device.GroupNorm) []float64 {
	x, gamma, beta := n.arrays[o.X.ID], n.weight(o.Gamma), n.weight(o.Beta)
	c := lastDim(o.X)
	image, width := len(x)/o.X.Shape[0], c/o.Groups
	out := make([]float64, len(x))
	for start := 0; start < len(x); start += image {
		for g := range o.Groups {
			var members []int
			for p := start; p < start+image; p += c {
				for j := range width {
					members = append(members, p+g*width+j)
				}
			}
			normalise(out, x, members, gamma, beta, float64(o.Eps))
		}
	}
	for i, v := range out {
		out[i] = activate(o.Act, v)
	}
	return out
}

func (n *definition) layerNorm(o *device.LayerNorm) []float64 {
	x, c := n.arrays[o.X.ID], lastDim(o.X)
	out := make([]float64, len(x))
	members := make([]int, c)
	for start := 0; start < len(x); start += c {
		for j := range members {
			members[j] = start + j
		}
		normalise(out, x, members, n.weight(o.Gamma), n.weight(o.Beta), float64(o.Eps))
	}
	return out
}

// normalise writes the members of x to out with mean 0 and variance 1, scaled and shifted by channel.
func normalise(out, x []float64, members []int, gamma, beta []float64, eps float64) {
	var mean, variance float64
	for _, i := range members {
		mean += x[i] / float64(len(members))
	}
	for _, i := range members {
		variance += (x[i] - mean) * (x[i] - mean) / float64(len(members))
	}
	for _, i := range members {
		out[i] = (x[i]-mean)/math.Sqrt(variance+eps)*gamma[i%len(gamma)] + beta[i%len(beta)]
	}
}

func (n *definition) attention(o *device.Attention) []float64 {
	q, k, v := n.factors(n.arrays[o.Q.ID]), n.factors(n.arrays[o.K.ID]), n.factors(n.arrays[o.V.ID])
	c, queries, keys := lastDim(o.Q), o.Q.Shape[1], o.K.Shape[1]
	d := c / o.Heads
	out := make([]float64, len(q))
	for i := range len(q) / d { // one head of one query
		head, query := i%o.Heads, i/o.Heads
		image := query / queries
		visible := keys
		if o.Causal {
			visible = query%queries + 1
		}
		p, sum := make([]float64, visible), 0.0
		at := func(key int) int { return (image*keys+key)*c + head*d }
		for j := range p {
			for e := range d {
				p[j] += q[i*d+e] * k[at(j)+e] / math.Sqrt(float64(d))
			}
		}
		top := slices.Max(p)
		for j := range p {
			p[j] = math.Exp(p[j] - top)
			sum += p[j]
		}
		p = n.factors(p)
		for j := range p {
			for e := range d {
				out[i*d+e] += p[j] / sum * v[at(j)+e]
			}
		}
	}
	return out
}
