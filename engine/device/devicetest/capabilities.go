package devicetest

import (
	"errors"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Whether a device streams weights is what Fit says: a plan of it keeps to the limit, takes what was told and gives the same;
// or else no plan that streams can be loaded.
func testStreaming(t *testing.T, d device.Device) {
	n := NewNetwork(1)
	x := n.Input(0, 2, 256)
	for range 6 {
		x = n.Tape.Gemm(device.Gemm{X: x, W: n.Param(device.Matrix, tensor.F32, 1.0/16, 256, 256), Bias: n.Param(device.Vector, tensor.F32, 1, 256)})
	}
	n.Tape.Output("output", x)
	whole := d.WeightBytes(n.Manifest, device.LoadPlan{})
	least, err := d.Fit(n.Manifest, 1)
	if errors.Is(err, device.ErrUnsupported) {
		if _, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{Streamed: true}, n, nil); !errors.Is(err, device.ErrUnsupported) {
			t.Errorf("a load that streams: %v, want %v", err, device.ErrUnsupported)
		}
		if m := d.Memory(); m != (device.Memory{}) {
			t.Errorf("memory %+v", m)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	want, err := Evaluate(n.Tape, n, n.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	smallest := d.WeightBytes(n.Manifest, least)
	for _, limit := range []int64{1, smallest, (smallest + whole) / 2, whole - 1, whole} {
		plan, err := d.Fit(n.Manifest, limit)
		if err != nil {
			t.Fatal(err)
		}
		planned := d.WeightBytes(n.Manifest, plan)
		if planned > max(limit, smallest) || limit >= whole && planned != whole || planned < whole && d.StreamedBytes(n.Tape, plan) == 0 {
			t.Errorf("within %d of %d bytes, %d at least: %d are held and %d streamed", limit, whole, smallest, planned, d.StreamedBytes(n.Tape, plan))
		}
		w, err := d.Load(t.Context(), n.Manifest, plan, n, nil)
		if err != nil {
			t.Fatal(err)
		}
		if used := d.Memory().UsedBytes; used != planned || w.Bytes() != planned {
			t.Errorf("within %d: %d bytes, %d used, promised %d", limit, w.Bytes(), used, planned)
		}
		r := newRun(t, d, n, w, device.RunOptions{})
		write(t, r, n.Tape, n.Inputs)
		for range 2 {
			if err := r.Execute(t.Context()); err != nil {
				t.Fatal(err)
			}
			compare(t, "output", read(t, r, n.Tape)["output"], want["output"])
			offload(t, w)
			onload(t, w)
		}
		r.Free()
		w.Free()
	}
}

// A device that tells its algorithms tells one for each convolution.
func testConvolutions(t *testing.T, d device.Device) {
	n, convolutions := Block(1, 1, 9), 0
	for _, op := range n.Tape.Ops() {
		if _, ok := op.(*device.Conv2D); ok {
			convolutions++
		}
	}
	for _, limit := range []int64{0, 1} {
		counts, err := d.Convolutions(n.Tape, device.RunOptions{ScratchLimit: limit})
		if errors.Is(err, device.ErrUnsupported) {
			continue
		}
		sum := 0
		for _, count := range counts {
			sum += count
		}
		if err != nil || sum != convolutions {
			t.Errorf("within %d: %v, %v; want %d", limit, counts, err, convolutions)
		}
	}
}
