package devicetest

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// floats are the values of a parameter of floats.
func (n *Network) floats(w device.Weight) []float64 {
	data := n.data[n.Manifest.At(w).Name]
	out := make([]float64, len(data)/4)
	for i := range out {
		out[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:])))
	}
	return out
}

// merged adds a parameter of the shape of another one, with values.
func (n *Network) merged(of device.Weight, v []float64) device.Weight {
	p := *n.Manifest.At(of)
	p.Name = fmt.Sprintf("param.%d", len(n.Manifest.Params))
	data := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(float32(x)))
	}
	n.data[p.Name] = data
	return n.Manifest.Add(p)
}

// dot is the product of [rows, k] and [k, columns].
func dot(a, b []float64, rows, k, columns int) []float64 {
	out := make([]float64, rows*columns)
	for r := range rows {
		for i := range k {
			for c := range columns {
				out[r*columns+c] += a[r*k+i] * b[i*columns+c]
			}
		}
	}
	return out
}

// adaptedCase is what is added to a weight [rows, k, taps], and the definition of it.
type adaptedCase struct {
	name string
	make func(n *Network, w device.Weight, in func(shape ...int) device.Array) device.Adaptation
	add  func(n *Network, a device.Adaptation, w []float64, rows, k, taps int)
}

func adaptedCases() []adaptedCase {
	const rank = 3
	shape := func(n *Network, w device.Weight) (rows, k int, size []int) {
		s := n.Manifest.At(w).Shape
		return s[0], s[1], s[2:]
	}
	// first is Down or Mid, in the size of the weight.
	first := func(n *Network, rows, k int, size []int) device.Weight {
		if len(size) == 0 {
			return n.Param(device.Matrix, tensor.F32, 0.3, rows, k)
		}
		return n.Param(device.Filter, tensor.F32, 0.3, append([]int{rows, k}, size...)...)
	}
	scaled := func(n *Network, a device.Adaptation, w, d []float64) {
		for i := range w {
			w[i] += value(n, a.Scale) * d[i]
		}
	}
	pair := func(n *Network, a device.Adaptation, w []float64, rows, k, taps int) {
		scaled(n, a, w, dot(n.floats(a.Up), n.floats(a.Down), rows, rank, k*taps))
	}
	return []adaptedCase{
		{"pair", func(n *Network, w device.Weight, in func(...int) device.Array) device.Adaptation {
			rows, k, size := shape(n, w)
			return device.Adaptation{Down: first(n, rank, k, size), Up: n.Param(device.Matrix, tensor.F32, 0.3, rows, rank), Scale: in(1)}
		}, pair},
		{"mid", func(n *Network, w device.Weight, in func(...int) device.Array) device.Adaptation {
			rows, k, size := shape(n, w)
			return device.Adaptation{Down: n.Param(device.Matrix, tensor.F32, 0.3, rank, k), Mid: first(n, rank, rank, size), Up: n.Param(device.Matrix, tensor.F32, 0.3, rows, rank), Scale: in(1)}
		}, func(n *Network, a device.Adaptation, w []float64, rows, k, taps int) {
			d, mid, down := make([]float64, rank*k*taps), n.floats(a.Mid), n.floats(a.Down)
			for i := range rank {
				for j := range rank {
					for c := range k {
						for tap := range taps {
							d[(i*k+c)*taps+tap] += mid[(i*rank+j)*taps+tap] * down[j*k+c]
						}
					}
				}
			}
			scaled(n, a, w, dot(n.floats(a.Up), d, rows, rank, k*taps))
		}},
		{"added", func(n *Network, w device.Weight, in func(...int) device.Array) device.Adaptation {
			rows, k, size := shape(n, w)
			return device.Adaptation{Added: first(n, rows, k, size), AddedBias: n.Param(device.Vector, tensor.F32, 1, rows), Scale: in(1)}
		}, func(n *Network, a device.Adaptation, w []float64, _, _, _ int) {
			scaled(n, a, w, n.floats(a.Added))
		}},
	}
}

// value is that of an input of one number.
func value(n *Network, a device.Array) float64 {
	for _, in := range n.Tape.Inputs() {
		if in.Array.ID == a.ID {
			return float64(n.Inputs[in.Name][0])
		}
	}
	return math.NaN()
}

// TestAdapted: ops with an adapted weight compute what they do with a merged one, with what they fuse.
func TestAdapted(t *testing.T) {
	const channels, out = 6, 8
	for _, c := range adaptedCases() {
		for _, act := range []device.Activation{device.None, device.GELU} {
			for _, conv := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %d %v", c.name, act, conv), func(t *testing.T) {
					n := NewNetwork(5)
					x, residual := n.Input(0, 1, 5, 4, channels), n.Input(0, 1, 5, 4, out)
					bias := n.Param(device.Vector, tensor.F32, 1, out)
					op := func(w device.Weight) device.Array {
						if !conv {
							return n.Tape.Gemm(device.Gemm{X: x, W: w, Bias: bias, Act: act, Residual: residual})
						}
						return n.Tape.Conv2D(device.Conv2D{X: x, W: w, Bias: bias, Act: act, Residual: residual, Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1})
					}
					w, taps := n.Param(device.Matrix, tensor.F32, 0.3, out, channels), 1
					if conv {
						w, taps = n.Param(device.Filter, tensor.F32, 0.3, out, channels, 3, 3), 9
					}
					plain := op(w)
					sum, moved := n.floats(w), n.floats(bias)
					for range 2 { // two of a kind
						a := c.make(n, w, func(shape ...int) device.Array { return n.Input(1, shape...) })
						n.Tape.Adapt(w, a)
						c.add(n, a, sum, out, channels, taps)
						if a.AddedBias.Present() {
							for i, v := range n.floats(a.AddedBias) {
								moved[i] += value(n, a.Scale) * v
							}
						}
					}
					n.Tape.Output("got", op(w))
					w, bias = n.merged(w, sum), n.merged(bias, moved)
					n.Tape.Output("want", op(w))
					n.Tape.Output("plain", plain)
					check(t, n)
				})
			}
		}
	}
}

// check compares got with want, which plain is not.
func check(t *testing.T, n *Network) {
	t.Helper()
	if err := n.Tape.Err(); err != nil {
		t.Fatal(err)
	}
	v, err := Evaluate(n.Tape, n, n.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	largest, diff, moved := 0.0, 0.0, 0.0
	for i, want := range v["want"] {
		largest = max(largest, math.Abs(float64(want)))
		diff = max(diff, math.Abs(float64(v["got"][i]-want)))
		moved = max(moved, math.Abs(float64(v["plain"][i]-want)))
	}
	if diff > 1e-6*largest || moved < 1e-2*largest {
		t.Errorf("off by %.1e of the largest value, allowed 1e-6; moved by %.1e", diff/largest, moved/largest)
	}
}

// TestAdaptedNorms: what is added to the vectors of a normalization, before its activation.
func TestAdaptedNorms(t *testing.T) {
	const c = 8
	for _, group := range []bool{false, true} {
		n := NewNetwork(6)
		x := n.Input(0, 2, 5, c)
		vector := func() device.Weight { return n.Param(device.Vector, tensor.F32, 1, c) }
		op := func(gamma, beta device.Weight) device.Array {
			if group {
				return n.Tape.GroupNorm(device.GroupNorm{X: x, Gamma: gamma, Beta: beta, Groups: 2, Eps: 1e-5, Act: device.SiLU})
			}
			return n.Tape.LayerNorm(device.LayerNorm{X: x, Gamma: gamma, Beta: beta, Eps: 1e-5})
		}
		gamma, beta := vector(), vector()
		n.Tape.Output("plain", op(gamma, beta))
		a := device.Adaptation{Added: vector(), AddedBias: vector(), Scale: n.Input(1, 1)}
		n.Tape.Adapt(gamma, a)
		n.Tape.Output("got", op(gamma, beta))
		m := float64(n.Inputs[n.Tape.Inputs()[1].Name][0])
		add := func(v, d []float64) []float64 {
			for i := range v {
				v[i] += m * d[i]
			}
			return v
		}
		n.Tape.Output("want", op(n.merged(gamma, add(n.floats(gamma), n.floats(a.Added))), n.merged(beta, add(n.floats(beta), n.floats(a.AddedBias)))))
		check(t, n)
	}
}
