package devicetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
)

func wantOffloaded(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, device.ErrOffloaded) {
		t.Errorf("%s: %v, want %v", what, err, device.ErrOffloaded)
	}
}

func offload(t *testing.T, a device.Allocation) {
	t.Helper()
	if err := a.Offload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func onload(t *testing.T, a device.Allocation) {
	t.Helper()
	if err := a.Onload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// What is offloaded counts apart and is not to be used; on the device again it is what it was, to the bit.
func testOffload(t *testing.T, d device.Device, o device.RunOptions) {
	n := Block(1, 2, 9)
	w := load(t, d, n)
	r := newRun(t, d, n, w, o)
	write(t, r, n.Tape, n.Inputs)
	execute := func() []float32 {
		t.Helper()
		if err := r.Execute(t.Context()); err != nil {
			t.Fatal(err)
		}
		return read(t, r, n.Tape)["output"]
	}
	memory := func(used, offloaded int64) {
		t.Helper()
		want := device.Memory{UsedBytes: used, OffloadedBytes: offloaded, PeakBytes: w.Bytes() + r.Bytes()}
		if got := d.Memory(); got != want {
			t.Errorf("memory %+v, want %+v", got, want)
		}
	}
	want, weights, scratch := execute(), w.Bytes(), r.Bytes()
	for range 2 {
		onload(t, w) // which it is
		memory(weights+scratch, 0)
		for range 2 {
			offload(t, w)
			if w.Bytes() != weights {
				t.Errorf("%d bytes, offloaded %d", weights, w.Bytes())
			}
			memory(scratch, weights)
		}
		_, err := d.NewRun(n.Tape, w, device.RunOptions{})
		wantOffloaded(t, "a run over offloaded weights", err)
		wantOffloaded(t, "an execution over offloaded weights", r.Execute(t.Context()))
		memory(scratch, weights)
		onload(t, w)
		memory(weights+scratch, 0)
		if got := execute(); !slices.Equal(got, want) {
			t.Error("other bits behind Offload and Onload of the weights")
		}

		offload(t, r)
		memory(weights, scratch)
		wantOffloaded(t, "an offloaded run", r.Execute(t.Context()))
		wantOffloaded(t, "writing to an offloaded run", r.Write("input.0", n.Inputs["input.0"]))
		wantOffloaded(t, "reading an offloaded run", r.Read("output", make([]float32, len(want))))
		offload(t, w)
		memory(0, weights+scratch)
		onload(t, r)
		memory(scratch, weights)
		if got := read(t, r, n.Tape)["output"]; !slices.Equal(got, want) {
			t.Error("other outputs behind Offload and Onload of the run")
		}
	}
	onload(t, w)
	if got := execute(); !slices.Equal(got, want) {
		t.Error("other bits in the end")
	}

	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(nil)
	for _, a := range []device.Allocation{w, r} {
		if err := a.Offload(cancelled); !errors.Is(err, context.Canceled) {
			t.Errorf("offload: %v, want context.Canceled", err)
		}
	}
	memory(weights+scratch, 0)
	offload(t, w)
	if err := w.Onload(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("onload: %v, want context.Canceled", err)
	}
	memory(scratch, weights)
	offload(t, r)
	for range 2 {
		r.Free()
		w.Free()
		memory(0, 0)
		offload(t, w)
		wantFreed(t, w.Onload(t.Context()))
		wantFreed(t, r.Onload(t.Context()))
	}
	_, err := d.NewRun(n.Tape, w, device.RunOptions{})
	wantFreed(t, err)
	memory(0, 0)
}

// The cap refuses an Onload as it would a Load, and what is refused stays offloaded.
func testOffloadCap(t *testing.T, newDevice func(*testing.T, int64) device.Device) {
	n := Block(1, 1, 8)
	other := newDevice(t, 0)
	weights := other.WeightBytes(n.Manifest, device.LoadPlan{})
	capBytes := other.OverheadBytes() + 2*weights - 1
	d := newDevice(t, capBytes)
	w := load(t, d, n)
	offload(t, w)
	beside := load(t, d, n) // for which there is room
	before := d.Memory()
	err := w.Onload(t.Context())
	var refused *device.MemoryError
	if !errors.As(err, &refused) || *refused != (device.MemoryError{Device: d.Name(), NeededBytes: weights, AvailableBytes: weights - 1, CapBytes: capBytes}) {
		t.Errorf("onload beyond the cap: %v", err)
	}
	before.Refused++
	if got := d.Memory(); got != before || got.OffloadedBytes != weights {
		t.Errorf("memory %+v, want %+v", got, before)
	}
	_, err = d.NewRun(n.Tape, w, device.RunOptions{})
	wantOffloaded(t, "behind an onload that was refused", err)
	beside.Free()
	onload(t, w)
	if got := d.Memory(); got.UsedBytes != weights || got.OffloadedBytes != 0 {
		t.Errorf("memory %+v, want %d used and nothing offloaded", got, weights)
	}
}

// Offload, Onload and Free at once leave nothing behind and count everything once.
func testOffloadConcurrent(t *testing.T, d device.Device) {
	n := Block(1, 1, 8)
	w := load(t, d, n)
	bytes := w.Bytes()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 50 {
				if err := errors.Join(w.Offload(context.Background()), w.Onload(context.Background())); err != nil {
					t.Error(err)
				}
				if m := d.Memory(); m.UsedBytes+m.OffloadedBytes != bytes {
					t.Errorf("memory %+v of %d bytes", m, bytes)
				}
			}
		})
	}
	group.Wait()
	if m := d.Memory(); m != (device.Memory{UsedBytes: bytes, PeakBytes: bytes}) {
		t.Errorf("memory %+v, want %d bytes used", m, bytes)
	}
	group.Go(w.Free)
	group.Go(func() {
		if err := w.Offload(context.Background()); err != nil {
			t.Error(err)
		}
	})
	group.Go(func() {
		if err := w.Onload(context.Background()); err != nil && !errors.Is(err, device.ErrFreed) {
			t.Error(err)
		}
	})
	group.Wait()
	if m := d.Memory(); m != (device.Memory{PeakBytes: bytes}) {
		t.Errorf("memory %+v in the end", m)
	}
}
