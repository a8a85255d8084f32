package stageengine

import (
	"path/filepath"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// TestPlanning: stages that could answer Plan in another way say so.
func TestPlanning(t *testing.T) {
	library, err := OpenLibrary(filepath.Join(repo, "testdata/golden/tiny-v"))
	if err != nil {
		t.Fatal(err)
	}
	planning := func(d cpu.Options, o Options) string {
		t.Helper()
		if o.Device, err = cpu.New(d); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = o.Device.Close() }) // it always returns nil
		o.Library = library
		info, err := newStage(stage.KindDenoiser, o).Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.Planning
	}
	same := planning(cpu.Options{Threads: 2, Index: 1}, Options{Host: "another", WarmBytes: 1, Precision: map[stage.Kind]tensor.DType{stage.KindDecoder: tensor.I8}})
	seen := map[string]string{"": "nothing", planning(cpu.Options{Threads: 2}, Options{}): "plain"}
	if seen[same] != "plain" {
		t.Errorf("%q is not among %v", same, seen)
	}
	for name, c := range map[string]struct {
		device  cpu.Options
		options Options
	}{
		"threads":   {cpu.Options{Threads: 3}, Options{}},
		"a budget":  {cpu.Options{Threads: 2, MemoryCapBytes: 1 << 30}, Options{}},
		"algorithm": {cpu.Options{Threads: 2, Conv: "direct"}, Options{}},
		"precision": {cpu.Options{Threads: 2}, Options{Precision: map[stage.Kind]tensor.DType{stage.KindDenoiser: tensor.I8}}},
		"compute":   {cpu.Options{Threads: 2}, Options{Compute: map[stage.Kind]device.Compute{stage.KindDenoiser: device.ComputeBF16}}},
		"streamed":  {cpu.Options{Threads: 2}, Options{ResidentBytes: map[stage.Kind]int64{stage.KindDenoiser: 0}}},
		"version":   {cpu.Options{Threads: 2}, Options{Version: "2"}},
	} {
		told := planning(c.device, c.options)
		if other := seen[told]; other != "" {
			t.Errorf("%s: the same as %s", name, other)
		}
		seen[told] = name
	}
}

// costly is a device whose process takes some of it.
type costly struct{ device.Device }

func (costly) OverheadBytes() int64 { return 1 << 20 }

// TestOverhead: what the process takes of the device is in use, and left to no image.
func TestOverhead(t *testing.T) {
	const budget = 6_500_000
	library, err := OpenLibrary(filepath.Join(repo, "models/starter"))
	if err != nil {
		t.Fatal(err)
	}
	dev, err := cpu.New(cpu.Options{MemoryCapBytes: budget})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() }) // it always returns nil
	plain, s := newStage(stage.KindDecoder, Options{Library: library, Device: dev}), newStage(stage.KindDecoder, Options{Library: library, Device: costly{dev}})
	if info, err := s.Info(t.Context()); err != nil || info.UsedBytes != 1<<20 || info.PeakBytes != 1<<20 || info.OverheadBytes != 1<<20 {
		t.Errorf("%+v, %v", info, err)
	}
	whole, errW := footprint(t.Context(), plain, "starter", 8, 16, 1, 0)
	less, errL := footprint(t.Context(), s, "starter", 8, 16, 1, 0)
	if errW != nil || errL != nil || less.WeightsBytes()+less.ScratchBytes > budget-1<<20 || whole.WeightsBytes()+whole.ScratchBytes <= budget-1<<20 {
		t.Errorf("%+v beside an overhead, %+v without; %v, %v", less, whole, errL, errW)
	}
}
