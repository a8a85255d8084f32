package devicetest

import (
	"errors"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Terms of a product count like a wider one's columns, whose weights may be streamed while theirs are not, in every type that a device
// computes in.
func testTerms(t *testing.T, d device.Device) {
	for _, c := range []struct {
		rows, k, columns int
		ranks            []int
		act              device.Activation
	}{
		{13, 24, 40, []int{3}, device.None},
		{300, 33, 17, []int{8, 5}, device.GELU},
		{7, 1024, 48, []int{32}, device.SiLU}, // rows that are copied
		{1, 700, 16, []int{1, 64, 7}, device.None},
	} {
		n := NewNetwork(uint64(c.k))
		own, low := &device.Manifest{}, &device.Manifest{}
		param := func(m *device.Manifest, l device.Layout, of tensor.DType, shape ...int) device.Weight {
			return m.Add(*n.Manifest.At(n.Param(l, of, 0.2, shape...)))
		}
		op := device.Gemm{W: param(own, device.Matrix, tensor.F16, c.columns, c.k), Bias: param(own, device.Vector, tensor.F32, c.columns), Act: c.act}
		var weights []device.Weight
		for _, r := range c.ranks {
			weights = append(weights, param(low, device.Matrix, tensor.F32, c.columns, r))
		}
		n.Tape = device.NewTape(own, low)
		op.X, op.Residual = n.Input(0, 2, c.rows, c.k), n.Input(0, 2, c.rows, c.columns)
		for i, r := range c.ranks {
			op.Terms = append(op.Terms, device.Term{X: n.Input(0, 2, c.rows, r), W: n.Tape.Further(0, weights[i])})
		}
		n.Tape.Output("output", n.Tape.Gemm(op))
		further, err := d.Load(t.Context(), low, device.LoadPlan{}, n, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(further.Free)
		plans := []device.LoadPlan{{}}
		if p, err := d.Fit(own, 1); err == nil {
			plans = append(plans, p)
		}
		for _, plan := range plans {
			w, err := d.Load(t.Context(), own, plan, n, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(w.Free)
			for _, o := range []device.RunOptions{{}, {ScratchLimit: 1}, {Compute: device.ComputeBF16}} {
				if device.Computes(d, o.Compute) != nil {
					continue
				}
				want, err := EvaluateIn(o.Compute, n.Tape, n, n.Inputs)
				if err != nil {
					t.Fatal(err)
				}
				r, err := d.NewRun(n.Tape, w, o, further)
				if err != nil {
					t.Fatal(err)
				}
				compare(t, "output", outputs(t, r, n), want["output"])
				r.Free()
			}
		}
		if len(plans) > 1 {
			testOwnTerms(t, d, n, op)
		}
	}
}

// testOwnTerms: weights of terms that would be streamed are refused.
func testOwnTerms(t *testing.T, d device.Device, n *Network, op device.Gemm) {
	t.Helper()
	for range 8 { // enough for buffers to be worth it
		n.Param(device.Matrix, tensor.F32, 1, 40, 40)
	}
	own := &device.Manifest{Params: n.Manifest.Params}
	tape := device.NewTape(own)
	op.X, op.Residual = tape.Input("x", op.X.Shape...), device.Array{}
	terms := op.Terms
	op.Terms = nil
	for _, term := range terms {
		term.X = tape.Input("term", term.X.Shape...)
		op.Terms = append(op.Terms, term)
	}
	tape.Output("output", tape.Gemm(op))
	if err := tape.Err(); err != nil {
		t.Fatal(err)
	}
	p, err := d.Fit(own, 1)
	if err != nil {
		t.Fatal(err)
	}
	w, err := d.Load(t.Context(), own, p, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Free()
	if _, err := d.NewRun(tape, w, device.RunOptions{}); !errors.Is(err, device.ErrUnsupported) {
		t.Errorf("streamed weights of terms: %v, want ErrUnsupported", err)
	}
}
