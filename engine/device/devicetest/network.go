package devicetest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Network is a manifest with random parameters, a tape over it and random inputs, by seed always the same.
// It is a device.Source.
type Network struct {
	Manifest *device.Manifest
	Tape     *device.Tape
	Inputs   map[string][]float32

	rng  *rand.Rand
	data map[string][]byte
}

// NewNetwork starts one without ops.
func NewNetwork(seed uint64) *Network {
	m := &device.Manifest{}
	return &Network{
		Manifest: m, Tape: device.NewTape(m), Inputs: map[string][]float32{},
		rng:  rand.New(rand.NewPCG(seed, 0)), //nolint:gosec // values for tests
		data: map[string][]byte{},
	}
}

// Section is device.Source's.
func (n *Network) Section(name string) (*io.SectionReader, error) {
	data, ok := n.data[name]
	if !ok {
		return nil, fmt.Errorf("no parameter %s", name)
	}
	return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), nil
}

// Param adds a parameter with normal values around 0 of standard deviation scale.
func (n *Network) Param(layout device.Layout, d tensor.DType, scale float64, shape ...int) device.Weight {
	name := fmt.Sprintf("param.%d", len(n.Manifest.Params))
	elems, _ := tensor.Shape(shape).Elems()
	n.data[name] = n.values(d, scale, elems)
	return n.Manifest.Add(device.Param{Name: name, Layout: layout, DType: d, Shape: shape})
}

// values is so many normal values around 0 of standard deviation scale, as they are stored.
func (n *Network) values(d tensor.DType, scale float64, elems int) []byte {
	data := make([]byte, elems*d.Size())
	for i := range elems {
		v := float32(n.rng.NormFloat64() * scale)
		switch d {
		case tensor.F32:
			binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
		case tensor.F16:
			binary.LittleEndian.PutUint16(data[2*i:], f16(v))
		case tensor.BF16:
			binary.LittleEndian.PutUint16(data[2*i:], uint16(math.Float32bits(v)>>16))
		}
	}
	return data
}

// f16 rounds towards zero; what is too small for a normal number becomes zero.
func f16(v float32) uint16 {
	bits := math.Float32bits(v)
	sign, exponent := uint16(bits>>16&0x8000), int(bits>>23&0xff)-127+15
	if exponent <= 0 {
		return sign
	}
	return sign | uint16(min(exponent, 30)<<10) | uint16(bits>>13&0x3ff)
}

// Input adds a float input with normal values around mean of standard deviation 1.
func (n *Network) Input(mean float64, shape ...int) device.Array {
	return n.valued(func(int) float32 { return float32(mean + n.rng.NormFloat64()) }, shape...)
}

// FixedInput adds a fixed input with normal values around 0 of standard deviation 1.
func (n *Network) FixedInput(shape ...int) device.Array {
	return n.declare(n.Tape.FixedInput, n.normal, shape...)
}

// valued adds a float input with the value f gives for each index.
func (n *Network) valued(f func(i int) float32, shape ...int) device.Array {
	return n.declare(n.Tape.Input, f, shape...)
}

func (n *Network) declare(input func(name string, shape ...int) device.Array, f func(i int) float32, shape ...int) device.Array {
	name := fmt.Sprintf("input.%d", len(n.Inputs))
	a := input(name, shape...)
	elems, _ := a.Shape.Elems()
	v := make([]float32, elems)
	for i := range v {
		v[i] = f(i)
	}
	n.Inputs[name] = v
	return a
}

func (n *Network) normal(int) float32 { return float32(n.rng.NormFloat64()) }

// IDs adds an id input with ids below rows, the first and the last among them.
func (n *Network) IDs(rows, batch, tokens int) device.Array {
	name := fmt.Sprintf("input.%d", len(n.Inputs))
	v := make([]float32, batch*tokens)
	for i := range v {
		v[i] = float32(n.rng.IntN(rows))
	}
	v[0], v[len(v)-1] = 0, float32(rows-1)
	n.Inputs[name] = v
	return n.Tape.IDs(name, batch, tokens)
}

// Block is a network with most kinds of op in the order a denoiser has them: images [batch, size, size, 24]
// through a convolution, norms, attention over [batch, 77, 40] and back.
func Block(seed uint64, batch, size int) *Network {
	n := NewNetwork(seed)
	t := n.Tape
	vec := func(c int) device.Weight { return n.Param(device.Vector, tensor.F32, 1, c) }
	mat := func(out, in int) device.Weight {
		return n.Param(device.Matrix, tensor.F16, 1/math.Sqrt(float64(in)), out, in)
	}
	x, context := n.Input(0, batch, size, size, 24), n.Input(0, batch, 77, 40)
	h := t.Conv2D(device.Conv2D{X: x, W: n.Param(device.Filter, tensor.BF16, 0.1, 48, 24, 3, 3), Bias: vec(48), Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1})
	h = t.GroupNorm(device.GroupNorm{X: h, Gamma: vec(48), Beta: vec(48), Groups: 8, Eps: 1e-5, Act: device.SiLU})
	h = t.Reshape(h, batch, size*size, 48)
	y := t.LayerNorm(device.LayerNorm{X: h, Gamma: vec(48), Beta: vec(48), Eps: 1e-5})
	y = t.Attention(device.Attention{
		Q: t.Gemm(device.Gemm{X: y, W: mat(48, 48)}), K: t.Gemm(device.Gemm{X: context, W: mat(48, 40)}),
		V: t.Gemm(device.Gemm{X: context, W: mat(48, 40)}), Heads: 3,
	})
	h = t.Gemm(device.Gemm{X: y, W: mat(48, 48), Bias: vec(48), Residual: h})
	h = t.GEGLU(device.GEGLU{X: t.Gemm(device.Gemm{X: h, W: mat(96, 48), Bias: vec(96)})})
	h = t.Concat(device.Concat{A: t.Reshape(h, batch, size, size, 48), B: x})
	t.Output("output", t.Gemm(device.Gemm{X: h, W: mat(24, 72), Bias: vec(24), Residual: x}))
	return n
}
