package stageengine

import (
	"bytes"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// TestCompute: a stage that multiplies in another type says so, draws something close to the same, and its weights are another
// edition of the same files, so that no request is made with both.
func TestCompute(t *testing.T) {
	plain := newUNet(t, false)
	of := func(c device.Compute) (*Stage, stage.Info, stage.Edition, []byte) {
		t.Helper()
		dev, err := cpu.New(cpu.Options{Emulate: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = dev.Close() }) // it always returns nil
		s := newStage(stage.KindDenoiser, Options{Library: plain.Library, Device: dev, Compute: map[stage.Kind]device.Compute{stage.KindDenoiser: c, stage.KindDecoder: device.ComputeBF16}})
		u := &unet{s, t, plain.file}
		e := u.load()
		t.Cleanup(func() { u.evict(false) })
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s, info, e, u.good()
	}
	_, info, e, latents := of(device.ComputeF32)
	if info.Compute != "f32" || e != plain.load() || !bytes.Equal(latents, plain.good()) {
		t.Errorf("%s, %+v: not what it is without the option", info.Compute, e)
	}
	_, rounded, other, less := of(device.ComputeBF16)
	if rounded.Compute != "bf16" || rounded.Planning == info.Planning || !e.Differs(other) || other.Identity == "" {
		t.Errorf("%s, planning %s, edition %+v; of float32 %s, %+v", rounded.Compute, rounded.Planning, other, info.Planning, e)
	}
	got, want := make([]float32, len(less)/4), make([]float32, len(latents)/4)
	if err := tensor.Widen(got, tensor.F32, less); err != nil {
		t.Fatal(err)
	}
	if err := tensor.Widen(want, tensor.F32, latents); err != nil {
		t.Fatal(err)
	}
	var worst, largest float32
	for i, v := range want {
		worst, largest = max(worst, got[i]-v, v-got[i]), max(largest, v, -v)
	}
	if worst == 0 || worst > 0.05*largest {
		t.Errorf("latents are off by %g of the largest value, %g", worst, largest)
	}
}
