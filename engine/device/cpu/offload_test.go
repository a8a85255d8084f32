package cpu_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
)

func offload(t *testing.T, w device.Weights) {
	t.Helper()
	if err := w.Offload(context.Background()); err != nil {
		t.Error(err)
	}
}

// The system refuses an Onload as it would a Load; the weights stay offloaded, and it can be tried again.
func TestOnloadRefused(t *testing.T) {
	fault := errors.New("injected")
	var refuse atomic.Bool
	var asked atomic.Int64
	d := open(t, cpu.Options{Threads: 1, Refuse: func(bytes int64) error {
		asked.Store(bytes)
		if refuse.Load() {
			return fault
		}
		return nil
	}})
	n := devicetest.Block(1, 1, 8)
	w, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Free()
	offload(t, w)
	for range 2 {
		refuse.Store(true)
		asked.Store(0)
		err := w.Onload(t.Context())
		if !errors.Is(err, device.ErrOutOfMemory) || !errors.Is(err, fault) || asked.Load() != w.Bytes() {
			t.Errorf("onload of %d bytes: %v, asked for %d", w.Bytes(), err, asked.Load())
		}
		if m := d.Memory(); m.UsedBytes != 0 || m.OffloadedBytes != w.Bytes() {
			t.Errorf("memory %+v, want %d bytes offloaded", m, w.Bytes())
		}
		if _, err := d.NewRun(n.Tape, w, device.RunOptions{}); !errors.Is(err, device.ErrOffloaded) {
			t.Errorf("a run over what stayed offloaded: %v", err)
		}
	}
	refuse.Store(false)
	if err := w.Onload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m := d.Memory(); m.UsedBytes != w.Bytes() || m.OffloadedBytes != 0 || m.Refused != 2 {
		t.Errorf("memory %+v, want %d bytes used and two refusals", m, w.Bytes())
	}
}

// Offload waits for the execution that reads streamed weights; one behind it gets the error, and the next behind Onload
// the same bits.
func TestStreamOffloadedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, n, src, w, r, want := streamedBlock(t)
		other, err := d.NewRun(n.Tape, w, device.RunOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(other.Free)
		proceed := src.hold()
		executed, behind := make(chan error, 1), make(chan error, 1)
		var offloaded atomic.Bool
		go func() { executed <- r.Execute(context.Background()) }()
		synctest.Wait()
		go func() {
			offload(t, w)
			offloaded.Store(true)
		}()
		synctest.Wait()
		if m := d.Memory(); offloaded.Load() || m.OffloadedBytes != 0 {
			t.Errorf("the weights were offloaded while they were read: memory %+v", m)
		}
		go func() { behind <- other.Execute(context.Background()) }()
		synctest.Wait()
		proceed()
		if err := <-executed; err != nil || !slices.Equal(output(t, r, n.Tape), want) {
			t.Errorf("the execution beside Offload: %v, or other bits", err)
		}
		if err := <-behind; !errors.Is(err, device.ErrOffloaded) {
			t.Errorf("the execution that waited behind Offload: %v, want %v", err, device.ErrOffloaded)
		}
		synctest.Wait()
		if m := d.Memory(); !offloaded.Load() || m.OffloadedBytes != w.Bytes() {
			t.Errorf("behind Offload: memory %+v", m)
		}
		if err := w.Onload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.Execute(t.Context()); err != nil || !slices.Equal(output(t, r, n.Tape), want) {
			t.Errorf("behind Onload: %v, or other bits", err)
		}
		offload(t, w)
		w.Free()
		if m := d.Memory(); m.UsedBytes != r.Bytes()+other.Bytes() || m.OffloadedBytes != 0 {
			t.Errorf("memory %+v, want that of two runs", m)
		}
	})
}
