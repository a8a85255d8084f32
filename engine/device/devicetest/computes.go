package devicetest

import (
	"errors"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// bf16Tolerance is that of ops which may round other values than their operands to bfloat16: transformed images and filters
// of a convolution, weights of attention before they are divided by their sum. One rounding is off by 2^-9 at most.
const bf16Tolerance = 4.0 / 512

// A device computes in another type as the definition does, or says that it cannot, and then takes nothing.
func testComputes(t *testing.T, d device.Device) {
	bf16 := device.RunOptions{Compute: device.ComputeBF16}
	if err := device.Computes(d, device.ComputeF32); err != nil {
		t.Error(err)
	}
	if err := device.Computes(d, bf16.Compute); err != nil {
		testComputesRefused(t, d, bf16, err)
		return
	}
	testComputesRefused(t, d, device.RunOptions{Compute: 255}, device.Computes(d, 255))
	groups := []opGroup{
		{"Gemm", gemms, tolerance},
		{"Conv2D", convs, bf16Tolerance},
		{"Rectified", rectified, bf16Tolerance},
		{"GroupNorm", groupNorms, tolerance},
		{"LayerNorm", layerNorms, tolerance},
		{"Attention", attentions, bf16Tolerance},
		{"Pointwise", pointwise, tolerance},
		{"Embed", embeds, tolerance},
	}
	for _, resident := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.I8, tensor.I4} {
		groups = append(groups, opGroup{"Gemm" + resident.String(), keptAs(resident, gemms), tolerance})
	}
	testGroups(t, d, bf16, groups)
	for _, limit := range []int64{0, 1} {
		n, o := Block(1, 2, 40), bf16
		o.ScratchLimit = limit
		want, err := EvaluateIn(o.Compute, n.Tape, n, n.Inputs)
		if err != nil {
			t.Fatal(err)
		}
		compareWithin(t, "block", ComputeWith(t, d, o, n.Tape, n, n.Inputs)["output"], want["output"], bf16Tolerance)
	}
}

func testComputesRefused(t *testing.T, d device.Device, o device.RunOptions, err error) {
	t.Helper()
	n := Block(1, 1, 9)
	_, scratch := d.ScratchBytes(n.Tape, o)
	_, spill := d.SpillBytes(n.Tape, o)
	_, convolutions := d.Convolutions(n.Tape, o)
	w := load(t, d, n)
	_, run := d.NewRun(n.Tape, w, o)
	for _, err := range []error{err, scratch, spill, convolutions, run} {
		if !errors.Is(err, device.ErrUnsupported) {
			t.Errorf("computing in %v: %v, want %v", o.Compute, err, device.ErrUnsupported)
		}
	}
	if used := d.Memory().UsedBytes; used != w.Bytes() {
		t.Errorf("%d bytes in use, %d of weights", used, w.Bytes())
	}
}
