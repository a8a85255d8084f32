package devicetest

import (
	"errors"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

func wantField(t *testing.T, err error, field string) {
	t.Helper()
	var f *device.FieldError
	if !errors.As(err, &f) || f.Field != field || f.Expected == "" || f.Got == "" {
		t.Errorf("error %v, want a FieldError of %q", err, field)
	}
}

func wantFreed(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, device.ErrFreed) {
		t.Errorf("error %v, want %v", err, device.ErrFreed)
	}
}

// Values that do not fit are refused by name, and do no harm.
func testFields(t *testing.T, d device.Device) {
	n := NewNetwork(1)
	const rows, dim, tokens = 10, 8, 4
	ids, x := n.IDs(rows, 1, tokens), n.Input(0, 1, tokens, dim)
	e := n.Tape.Embed(device.Embed{
		IDs: ids, Tokens: n.Param(device.Table, tensor.F32, 1, rows, dim), Positions: n.Param(device.Table, tensor.F32, 1, tokens, dim),
	})
	n.Tape.Output("output", n.Tape.Concat(device.Concat{A: e, B: x}))
	r := newRun(t, d, n, load(t, d, n), device.RunOptions{})
	write(t, r, n.Tape, n.Inputs)

	for _, ids := range [][]int32{{}, {1, 2, 3}, {0, 0, 0, rows}, {-1, 0, 0, 0}, {0, 1 << 30, 0, 0}} {
		wantField(t, r.WriteIDs("input.0", ids), "input input.0")
	}
	wantField(t, r.WriteIDs("input.1", make([]int32, tokens*dim)), "input input.1")
	wantField(t, r.WriteIDs("ids", []int32{1}), "input ids")
	for _, length := range []int{0, tokens*dim - 1, tokens*dim + 1} {
		wantField(t, r.Write("input.1", make([]float32, length)), "input input.1")
	}
	wantField(t, r.Write("input.0", make([]float32, tokens)), "input input.0")
	wantField(t, r.Write("output", make([]float32, tokens)), "input output")
	for _, length := range []int{0, 2*tokens*dim - 1, 2*tokens*dim + 1} {
		wantField(t, r.Read("output", make([]float32, length)), "output output")
	}
	wantField(t, r.Read("input.1", make([]float32, tokens*dim)), "output input.1")

	if err := r.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	want, err := Evaluate(n.Tape, n, n.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "output", read(t, r, n.Tape)["output"], want["output"])
}

// Weights serve the tapes of an equal manifest on their own device, and no others.
func testWeights(t *testing.T, d, other device.Device) {
	n, same := Block(1, 1, 8), Block(2, 1, 8)
	w := load(t, d, n)
	newRun(t, d, same, w, device.RunOptions{})

	_, err := other.NewRun(n.Tape, w, device.RunOptions{})
	wantField(t, err, "weights")
	_, err = d.NewRun(NewNetwork(1).Tape, w, device.RunOptions{})
	wantField(t, err, "weights")
	same.Manifest.Params[2].Shape = tensor.Shape{24}
	_, err = d.NewRun(same.Tape, w, device.RunOptions{})
	wantField(t, err, "parameter param.2")

	bad := Block(1, 1, 8)
	bad.Tape.Reshape(device.Array{ID: 1, Shape: tensor.Shape{2}}, 3)
	if _, err := d.ScratchBytes(bad.Tape, device.RunOptions{}); !errors.Is(err, bad.Tape.Err()) {
		t.Errorf("scratch of a tape with an error: %v, want %v", err, bad.Tape.Err())
	}
	if _, err := d.NewRun(bad.Tape, w, device.RunOptions{}); !errors.Is(err, bad.Tape.Err()) {
		t.Errorf("run of a tape with an error: %v, want %v", err, bad.Tape.Err())
	}
}

func testFreed(t *testing.T, d device.Device) {
	n := Block(1, 1, 8)
	w := load(t, d, n)
	r := newRun(t, d, n, w, device.RunOptions{})
	write(t, r, n.Tape, n.Inputs)
	r.Free()
	wantFreed(t, r.Execute(t.Context()))
	wantFreed(t, r.Write("input.0", n.Inputs["input.0"]))
	wantFreed(t, r.WriteIDs("input.0", nil))
	wantFreed(t, r.Read("output", n.Inputs["input.0"]))
	w.Free()
	_, err := d.NewRun(n.Tape, w, device.RunOptions{})
	wantFreed(t, err)
	if used := d.Memory().UsedBytes; used != 0 {
		t.Errorf("%d bytes stay in use", used)
	}
}
