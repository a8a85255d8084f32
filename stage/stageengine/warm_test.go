package stageengine

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/stage"
)

// Remembered prompts stay with warm weights, and count with them.
func TestEncoderRemembersWhileWarm(t *testing.T) {
	e, encode, batches := counted(t)
	first := encode("fog", "a boat")
	batches()
	weights := e.books[partOf(e, encoderModel)].component.WeightsBytes
	evicted, err := e.Evict(t.Context(), stage.EvictRequest{Component: partOf(e, encoderModel), Keep: true})
	if err != nil || evicted != (stage.Evicted{FreedBytes: weights, WarmBytes: weights}) {
		t.Errorf("%+v of %d bytes, %v", evicted, weights, err)
	}
	if m := e.Device.Memory(); m.UsedBytes != 0 || m.OffloadedBytes != weights {
		t.Errorf("memory %+v, want %d bytes offloaded", m, weights)
	}
	if err := e.Load(t.Context(), stage.LoadRequest{Component: partOf(e, encoderModel)}, nil); err != nil {
		t.Fatal(err)
	}
	if again := encode("fog", "a boat"); !slices.EqualFunc(first, again, bytes.Equal) {
		t.Error("other states of remembered prompts")
	}
	if got := batches(); got != nil {
		t.Errorf("batches of %v, want all remembered", got)
	}
	if m := e.Device.Memory(); m.UsedBytes != weights || m.OffloadedBytes != 0 {
		t.Errorf("memory %+v, want %d bytes used", m, weights)
	}
}

// A device that has no room for warm weights, or for the store behind them, leaves them warm; the load is told so, and is
// done when there is room.
func TestWarmRefused(t *testing.T) {
	library, err := OpenLibrary(filepath.Join(repo, "testdata/golden", encoderModel))
	if err != nil {
		t.Fatal(err)
	}
	left := -1 // allocations until one is refused
	claim := &sharing{left: 1 << 30, share: stage.DeviceShare{BudgetBytes: 100, ForeignBytes: 60}}
	d, err := cpu.New(cpu.Options{Threads: 1, MemoryCapBytes: 1 << 30, Claim: claim, Refuse: func(int64) error {
		if left--; left == -1 {
			return errors.New("injected")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // it always returns nil
	e := newStage(stage.KindEncoder, Options{Library: library, Device: d, Host: "test", WarmBytes: 1 << 30})
	load := func() error { return e.Load(t.Context(), stage.LoadRequest{Component: partOf(e, encoderModel)}, nil) }
	if err := load(); err != nil {
		t.Fatal(err)
	}
	weights := e.books[partOf(e, encoderModel)].component.WeightsBytes
	if _, err := e.Evict(t.Context(), stage.EvictRequest{Component: partOf(e, encoderModel), Keep: true}); err != nil {
		t.Fatal(err)
	}
	warm := func() {
		t.Helper()
		info, err := e.Info(t.Context())
		if want := []stage.ResidentComponent{{Name: encoderModel + "/text_encoder", WeightsBytes: weights}}; err != nil || !cmp.Equal(info.Warm, want) || info.Resident != nil {
			t.Errorf("warm %v, resident %v, %v; want %v warm", info.Warm, info.Resident, err, want)
		}
		if m := d.Memory(); m.UsedBytes != 0 || m.OffloadedBytes != weights || claim.left != 1<<30 {
			t.Errorf("memory %+v and %d left of the claim, want all of %d bytes offloaded", m, claim.left, weights)
		}
	}
	for i, what := range []string{"the weights", "the store"} {
		left = i
		if err := load(); stage.ReasonOf(err) != stage.ModelDoesNotFit {
			t.Errorf("refused %s: %v, want %s", what, err, stage.ModelDoesNotFit)
		}
		warm()
	}
	claim.left = weights - 1
	if err := load(); stage.ReasonOf(err) != stage.DeviceBusy {
		t.Errorf("held by others: %v, want %s", err, stage.DeviceBusy)
	}
	claim.left = 1 << 30
	warm()
	if err := load(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Evict(t.Context(), stage.EvictRequest{Component: partOf(e, encoderModel)}); err != nil {
		t.Fatal(err)
	}
	if m := d.Memory(); m.UsedBytes != 0 || m.OffloadedBytes != 0 || claim.left != 1<<30 {
		t.Errorf("in the end memory %+v, %d left of the claim", m, claim.left)
	}
}

// A stage without memory for warm weights keeps none.
func TestNothingWarm(t *testing.T) {
	_, d, _, devices := streamingStages(t, filepath.Join(repo, "testdata/golden", encoderModel), nil)
	evicted, err := d.Evict(t.Context(), stage.EvictRequest{Component: partOf(d, encoderModel), Keep: true})
	if err != nil || evicted.FreedBytes == 0 || evicted.WarmBytes != 0 {
		t.Errorf("%+v, %v", evicted, err)
	}
	info, err := d.Info(t.Context())
	if m := devices[stage.KindDenoiser].Memory(); err != nil || info.WarmBudgetBytes != 0 || info.Warm != nil || m.UsedBytes != 0 || m.OffloadedBytes != 0 {
		t.Errorf("%+v, %v, memory %+v", info, err, m)
	}
}

// The files that warm weights are streamed from stay open until they are dropped.
func TestWarmStreamed(t *testing.T) {
	_, cold, _, _ := streamingStages(t, filepath.Join(repo, "testdata/golden", encoderModel), map[stage.Kind]int64{stage.KindDenoiser: 0})
	o := cold.Options
	o.WarmBytes = 1 << 30
	d := newStage(stage.KindDenoiser, o)
	evict := func(keep bool) {
		t.Helper()
		if _, err := d.Evict(t.Context(), stage.EvictRequest{Component: partOf(d, encoderModel), Keep: keep}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Load(t.Context(), stage.LoadRequest{Component: partOf(d, encoderModel)}, nil); err != nil {
		t.Fatal(err)
	}
	net := d.books[partOf(d, encoderModel)].network().Files()
	name := net.Manifest().Params[0].Name
	evict(true)
	if _, err := net.Source().Section(name); err != nil {
		t.Errorf("while the weights are warm: %v", err)
	}
	if err := d.Load(t.Context(), stage.LoadRequest{Component: partOf(d, encoderModel)}, nil); err != nil || d.books[partOf(d, encoderModel)].network().Files() != net {
		t.Errorf("%v, or another network behind a load of warm weights", err)
	}
	evict(true)
	evict(false)
	if _, err := net.Source().Section(name); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("behind the drop the files give %v, want them closed", err)
	}
}
