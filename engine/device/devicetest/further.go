package devicetest

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// adapted records a convolution and a product with weights of the network, to each of which those of two others are added: tape ops
// name weights as place tells.
func adapted(n *Network, tape *device.Tape, weights func(i int) [6]device.Weight) {
	n.Tape, n.Inputs = tape, map[string][]float32{}
	own, first, second := weights(0), weights(1), weights(2)
	const pixels, c = 11, 24
	x, by := n.Input(0, 1, pixels, pixels, c), n.Input(0, 1)
	same := func(w device.Weight) device.Conv2D {
		return device.Conv2D{X: x, W: w, Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1}
	}
	conv := same(own[0])
	for _, w := range [][6]device.Weight{first, second} {
		h := tape.Affine(device.Affine{X: tape.Conv2D(same(w[0])), Mul: by})
		conv.Residual = tape.Gemm(device.Gemm{X: h, W: w[1], Residual: conv.Residual})
	}
	h := tape.Reshape(tape.Conv2D(conv), 1, pixels*pixels, c)
	product := device.Gemm{X: h, W: own[2], Bias: own[3]}
	for _, w := range [][6]device.Weight{first, second} {
		product.Residual = tape.Gemm(device.Gemm{X: tape.Gemm(device.Gemm{X: h, W: w[4]}), W: w[5], Residual: product.Residual})
	}
	tape.Output("output", tape.Gemm(product))
}

// parameters adds those that adapted uses, whose rank is that of what is added.
func parameters(n *Network, rank int) (w [6]device.Weight) {
	const c = 24
	scale := 1 / math.Sqrt(c)
	rows := c
	if rank > 0 {
		rows = rank
	}
	w[0] = n.Param(device.Filter, tensor.F16, 0.1, rows, c, 3, 3)
	w[1] = n.Param(device.Matrix, tensor.F32, 0.3, c, rows)
	w[2] = n.Param(device.Matrix, tensor.BF16, scale, c, c)
	w[3] = n.Param(device.Vector, tensor.F32, 1, c)
	w[4] = n.Param(device.Matrix, tensor.F16, scale, rows, c)
	w[5] = n.Param(device.Matrix, tensor.F16, 0.3, c, rows)
	return w
}

// A tape over several manifests computes what one over all of their parameters does, to the bit, also where the first ones are streamed.
func testFurther(t *testing.T, d device.Device) {
	parts := []*Network{NewNetwork(1), NewNetwork(2), NewNetwork(3)}
	together, all := NewNetwork(4), [3][6]device.Weight{}
	weights := [3][6]device.Weight{}
	for i, n := range parts {
		weights[i] = parameters(n, 3*i)
		for j, p := range n.Manifest.Params {
			data := n.data[p.Name]
			p.Name += string(rune('a' + i))
			together.data[p.Name] = data
			all[i][j] = together.Manifest.Add(p)
		}
	}
	adapted(together, device.NewTape(together.Manifest), func(i int) [6]device.Weight { return all[i] })
	want := outputs(t, newRun(t, d, together, load(t, d, together), device.RunOptions{}), together)

	n := parts[0]
	tape := device.NewTape(n.Manifest, parts[1].Manifest, parts[2].Manifest)
	adapted(n, tape, func(i int) (out [6]device.Weight) {
		for j, w := range weights[i] {
			if out[j] = w; i > 0 {
				out[j] = tape.Further(i-1, w)
			}
		}
		return out
	})
	n.Inputs = together.Inputs
	further := []device.Weights{load(t, d, parts[1]), load(t, d, parts[2])}
	plans := []device.LoadPlan{{}}
	if p, err := d.Fit(n.Manifest, 1); err == nil {
		plans = append(plans, p)
	}
	for _, plan := range plans {
		w, err := d.Load(t.Context(), n.Manifest, plan, n, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Free)
		for _, o := range []device.RunOptions{{}, {ScratchLimit: 1}} {
			r, err := d.NewRun(tape, w, o, further...)
			if err != nil {
				t.Fatal(err)
			}
			if scratch, err := d.ScratchBytes(tape, o); err != nil || r.Bytes() != scratch {
				t.Errorf("scratch: %d bytes, promised %d, %v", r.Bytes(), scratch, err)
			}
			if got := outputs(t, r, n); o.ScratchLimit == 0 && !slices.Equal(got, want) {
				t.Errorf("%+v: other bits than those of one manifest", plan)
			} else if o.ScratchLimit > 0 {
				compare(t, "output", got, want)
			}
			r.Free()
		}
	}
	_, err := d.NewRun(tape, load(t, d, n), device.RunOptions{}, further[0])
	wantField(t, err, "weights")
	_, err = d.NewRun(tape, load(t, d, n), device.RunOptions{}, further[0], load(t, d, parts[1]))
	var wrong *device.FieldError
	if !errors.As(err, &wrong) {
		t.Errorf("the first's weights for the second: %v", err)
	}
	further[1].Free()
	_, err = d.NewRun(tape, load(t, d, n), device.RunOptions{}, further...)
	wantFreed(t, err)
}

// outputs are what a run gives of the network's inputs.
func outputs(t *testing.T, r device.Run, n *Network) []float32 {
	t.Helper()
	write(t, r, n.Tape, n.Inputs)
	if err := r.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	return read(t, r, n.Tape)["output"]
}
