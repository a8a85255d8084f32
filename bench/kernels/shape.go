// Package kernels times the operations of real networks one by one, at the shapes they occur with, as shares of what
// the machine can do.
//
// The package may import the engine and bench/configs, bench/limits.
package kernels

import (
	"fmt"
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
)

// Shape is an operation with its operands' shapes and its settings: all that its time depends on but for the stored
// type of its weights.
type Shape struct {
	Op       string `json:"op"`
	X        []int  `json:"x"`
	Weight   []int  `json:"weight,omitempty"`
	Keys     []int  `json:"keys,omitempty"`  // of attention
	Other    []int  `json:"other,omitempty"` // the second operand of concat
	Stride   int    `json:"stride,omitempty"`
	Pad      []int  `json:"pad,omitempty"` // top, left, bottom, right
	Upsample bool   `json:"upsample,omitempty"`
	Heads    int    `json:"heads,omitempty"`
	Causal   bool   `json:"causal,omitempty"`
	Groups   int    `json:"groups,omitempty"`
	Act      string `json:"act,omitempty"`
	Bias     bool   `json:"bias,omitempty"`
	Residual bool   `json:"residual,omitempty"`
	PerImage []int  `json:"per_image,omitempty"`
}

// The operations, by Shape.Op.
const (
	gemm      = "gemm"
	conv2d    = "conv2d"
	attention = "attention"
	groupNorm = "group_norm"
	layerNorm = "layer_norm"
	geglu     = "geglu"
	activate  = "activate"
	concat    = "concat"
	softmax   = "softmax" // a part of attention, which has no op of its own
)

// activations by their names in the table of shapes.
func activations() map[string]device.Activation {
	return map[string]device.Activation{"": device.None, "silu": device.SiLU, "gelu": device.GELU, "quick_gelu": device.QuickGELU, "leaky_relu": device.LeakyReLU}
}

func nameOf(a device.Activation) string {
	for name, act := range activations() {
		if act == a {
			return name
		}
	}
	return fmt.Sprintf("activation %d", a)
}

// shapeOf describes an op of a tape; ok is false for one that is not timed by itself.
func shapeOf(m *device.Manifest, op device.Op) (s Shape, ok bool) {
	weight := func(w device.Weight) []int { return m.At(w).Shape }
	switch o := op.(type) {
	case *device.Gemm:
		return Shape{Op: gemm, X: o.X.Shape, Weight: weight(o.W), Act: nameOf(o.Act), Bias: o.Bias.Present(), Residual: o.Residual.Present()}, true
	case *device.Conv2D:
		return Shape{
			Op: conv2d, X: o.X.Shape, Weight: weight(o.W), Stride: o.Stride, Pad: []int{o.Top, o.Left, o.Bottom, o.Right}, Upsample: o.Upsample,
			Act: nameOf(o.Act), Bias: o.Bias.Present(), Residual: o.Residual.Present(), PerImage: o.PerImage.Shape,
		}, true
	case *device.Attention:
		return Shape{Op: attention, X: o.Q.Shape, Keys: o.K.Shape, Heads: o.Heads, Causal: o.Causal}, true
	case *device.GroupNorm:
		return Shape{Op: groupNorm, X: o.X.Shape, Groups: o.Groups, Act: nameOf(o.Act)}, true
	case *device.LayerNorm:
		return Shape{Op: layerNorm, X: o.X.Shape}, true
	case *device.GEGLU:
		return Shape{Op: geglu, X: o.X.Shape}, true
	case *device.Activate:
		return Shape{Op: activate, X: o.X.Shape, Act: nameOf(o.Act)}, true
	case *device.Concat:
		return Shape{Op: concat, X: o.A.Shape, Other: o.B.Shape}, true
	}
	return Shape{}, false
}

// Kind is the operation as the rows of a table are grouped.
func (s Shape) Kind() string {
	switch {
	case s.Op == gemm && len(s.X) == 4:
		return "conv 1x1"
	case s.Op == conv2d && s.Upsample:
		return "upsample + conv 3x3"
	case s.Op == conv2d:
		return fmt.Sprintf("conv %dx%d s%d", s.Weight[2], s.Weight[3], s.Stride)
	case s.Op == attention && s.Causal:
		return "attention, causal"
	case s.Op == attention && s.Heads == 1:
		return "attention, one head"
	case s.Op == attention && s.X[1] == s.Keys[1]:
		return "attention, self"
	case s.Op == attention:
		return "attention, cross"
	case (s.Op == groupNorm || s.Op == activate) && s.Act != "":
		return strings.Replace(s.Op, activate, "", 1) + map[bool]string{true: "+"}[s.Op == groupNorm] + s.Act
	}
	return s.Op
}

// Size is the shape for people: "[2 64 64 320] -> 640".
func (s Shape) Size() string {
	x := strings.Trim(fmt.Sprint(s.X), "[]")
	x = strings.ReplaceAll(x, " ", "x")
	switch s.Op {
	case gemm, conv2d:
		return fmt.Sprintf("%s -> %d", x, s.Weight[0])
	case attention:
		return fmt.Sprintf("%dx %dx%dx%dx%d", s.X[0], s.X[1], s.Keys[1], s.Heads, s.X[2]/s.Heads)
	case concat:
		return fmt.Sprintf("%s + %d", x, s.Other[len(s.Other)-1])
	}
	return x
}

// Weighted reports whether the time depends on how weights are stored.
func (s Shape) Weighted() bool { return s.Weight != nil }

// Flops counts the floating point operations of products, 2 for a multiply-add, as direct methods make them; 0 for
// operations that memory bounds.
func (s Shape) Flops() float64 {
	switch s.Op {
	case gemm:
		return 2 * count(s.X) * float64(s.Weight[0])
	case conv2d:
		return 2 * count(s.out()) * count(s.Weight[1:])
	case attention:
		f := 4 * count(s.X) * float64(s.Keys[1])
		if s.Causal {
			f *= float64(s.X[1]+1) / float64(2*s.X[1])
		}
		return f
	}
	return 0
}

// Bytes is the least that must be read and written: every operand and the result once.
func (s Shape) Bytes() float64 {
	switch s.Op {
	case geglu:
		return 4 * 1.5 * count(s.X)
	case concat:
		return 4 * 2 * (count(s.X) + count(s.Other))
	}
	return 4 * 2 * count(s.X)
}

// out is the result's shape of a convolution.
func (s Shape) out() []int {
	h, w := s.X[1], s.X[2]
	if s.Upsample {
		h, w = 2*h, 2*w
	}
	side := func(n, before, behind, k int) int { return (n+before+behind-k)/s.Stride + 1 }
	return []int{s.X[0], side(h, s.Pad[0], s.Pad[2], s.Weight[2]), side(w, s.Pad[1], s.Pad[3], s.Weight[3]), s.Weight[0]}
}

func count(dims []int) float64 {
	n := 1.0
	for _, d := range dims {
		n *= float64(d)
	}
	return n
}

// tape records the shape as the one op of a tape, with weights kept as told. Inputs of several values are named x,
// y, residual and shift.
func (s Shape) tape(kept storage) (*device.Tape, error) {
	m := &device.Manifest{}
	act, ok := activations()[s.Act]
	if !ok {
		return nil, fmt.Errorf("kernels: no activation %q", s.Act)
	}
	weight := func(layout device.Layout, shape ...int) device.Weight {
		p := device.Param{Name: fmt.Sprintf("w%d", len(m.Params)), Layout: layout, DType: kept.dtype, Shape: shape}
		if layout == device.Matrix || layout == device.Filter {
			p.Resident = kept.resident
		}
		return m.Add(p)
	}
	t := device.NewTape(m)
	x := t.Input("x", s.X...)
	last := s.X[len(s.X)-1]
	var bias device.Weight
	var residual, shift, out device.Array
	if s.Bias {
		bias = weight(device.Vector, s.Weight[0])
	}
	switch s.Op {
	case gemm:
		if s.Residual {
			residual = t.Input("residual", append(append([]int(nil), s.X[:len(s.X)-1]...), s.Weight[0])...)
		}
		out = t.Gemm(device.Gemm{X: x, W: weight(device.Matrix, s.Weight...), Bias: bias, Act: act, Residual: residual})
	case conv2d:
		if s.Residual {
			residual = t.Input("residual", s.out()...)
		}
		if s.PerImage != nil {
			shift = t.Input("shift", s.PerImage...)
		}
		out = t.Conv2D(device.Conv2D{
			X: x, W: weight(device.Filter, s.Weight...), Bias: bias, Stride: s.Stride, Top: s.Pad[0], Left: s.Pad[1], Bottom: s.Pad[2], Right: s.Pad[3],
			Upsample: s.Upsample, PerImage: shift, Act: act, Residual: residual,
		})
	case attention:
		out = t.Attention(device.Attention{Q: x, K: t.Input("k", s.Keys...), V: t.Input("v", s.Keys...), Heads: s.Heads, Causal: s.Causal})
	case groupNorm:
		out = t.GroupNorm(device.GroupNorm{X: x, Gamma: weight(device.Vector, last), Beta: weight(device.Vector, last), Groups: s.Groups, Eps: 1e-5, Act: act})
	case layerNorm:
		out = t.LayerNorm(device.LayerNorm{X: x, Gamma: weight(device.Vector, last), Beta: weight(device.Vector, last), Eps: 1e-5})
	case geglu:
		out = t.GEGLU(device.GEGLU{X: x})
	case activate:
		out = t.Activate(device.Activate{X: x, Act: act})
	case concat:
		out = t.Concat(device.Concat{A: x, B: t.Input("y", s.Other...)})
	default:
		return nil, fmt.Errorf("kernels: no op %q", s.Op)
	}
	t.Output("out", out)
	return t, t.Err()
}
