package devicetest_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
)

func copying(t *testing.T, o devicetest.CopyingOptions) *devicetest.Copying {
	t.Helper()
	inner, err := cpu.New(cpu.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	return over(t, inner, o)
}

func over(t *testing.T, inner device.Device, o devicetest.CopyingOptions) *devicetest.Copying {
	t.Helper()
	d, err := devicetest.NewCopying(inner, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if m := inner.Memory(); m.UsedBytes != 0 || m.OffloadedBytes != 0 {
			t.Errorf("in the end the device that computes has %+v", m)
		}
	})
	return d
}

// A device with an address space of its own is a device, whatever it takes for itself and whether it can stream or not.
func TestCopyingConformance(t *testing.T) {
	for name, o := range map[string]devicetest.CopyingOptions{
		"with an overhead": {OverheadBytes: 300 << 10}, "unstreamed": {Unstreamed: true},
	} {
		t.Run(name, func(t *testing.T) {
			devicetest.Run(t, func(t *testing.T, capBytes int64) device.Device {
				o := o
				o.CapBytes = capBytes
				return copying(t, o)
			})
		})
	}
}

// lender is a claim of so many bytes.
type lender struct{ left int64 }

func (l *lender) Reserve(bytes int64) error {
	if bytes > l.left {
		return &device.BusyError{NeededBytes: bytes, AvailableBytes: l.left}
	}
	l.left -= bytes
	return nil
}

func (l *lender) Release(bytes int64) { l.left += bytes }

// What the device takes for itself is under the cap and in the claim from the opening to the Close, and not in what is used.
func TestCopyingOverhead(t *testing.T) {
	const overhead, all = 1 << 20, 3 << 20
	claim := &lender{left: all}
	d := copying(t, devicetest.CopyingOptions{CapBytes: 2 << 20, OverheadBytes: overhead, Claim: claim})
	if m := d.Memory(); m.UsedBytes != 0 || claim.left != all-overhead {
		t.Errorf("memory %+v, %d left of the claim", m, claim.left)
	}
	n := devicetest.Block(1, 1, 8)
	w, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
	if err != nil || claim.left != all-overhead-w.Bytes() {
		t.Fatalf("%v, %d left of the claim", err, claim.left)
	}
	w.Free()
	for range 2 {
		if err := d.Close(); err != nil || claim.left != all {
			t.Errorf("%v, %d left of the claim behind the Close", err, claim.left)
		}
	}

	inner, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	var busy *device.BusyError
	for name, o := range map[string]devicetest.CopyingOptions{
		"cap": {CapBytes: overhead - 1, OverheadBytes: overhead}, "claim": {OverheadBytes: overhead, Claim: &lender{left: overhead - 1}},
	} {
		if _, err := devicetest.NewCopying(inner, o); !errors.Is(err, device.ErrOutOfMemory) || errors.As(err, &busy) != (name == "claim") {
			t.Errorf("an overhead beyond the %s: %v", name, err)
		}
	}
}

// What cannot be offloaded stays on the device as it was, and can be used, offloaded later and freed.
func TestCopyingOffloadFails(t *testing.T) {
	fault := errors.New("injected")
	var fail atomic.Bool
	d := copying(t, devicetest.CopyingOptions{Fail: func(int64) error {
		if fail.Load() {
			return fault
		}
		return nil
	}})
	n := devicetest.Block(1, 1, 8)
	w, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.NewRun(n.Tape, w, device.RunOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range n.Inputs {
		if err := r.Write(name, v); err != nil {
			t.Fatal(err)
		}
	}
	execute := func() []float32 {
		t.Helper()
		v := make([]float32, 8*8*24)
		if err := errors.Join(r.Execute(t.Context()), r.Read("output", v)); err != nil {
			t.Fatal(err)
		}
		return v
	}
	want, all := execute(), w.Bytes()+r.Bytes()
	fail.Store(true)
	for _, a := range []device.Allocation{w, r} {
		if err := a.Offload(t.Context()); !errors.Is(err, fault) {
			t.Errorf("offload: %v, want the fault", err)
		}
		if m := d.Memory(); m.UsedBytes != all || m.OffloadedBytes != 0 {
			t.Errorf("memory %+v, want %d bytes used", m, all)
		}
		if !slices.Equal(execute(), want) {
			t.Error("other bits behind an Offload that failed")
		}
	}
	fail.Store(false)
	if err := errors.Join(w.Offload(t.Context()), r.Offload(t.Context())); err != nil {
		t.Error(err)
	}
	if m := d.Memory(); m.UsedBytes != 0 || m.OffloadedBytes != all {
		t.Errorf("memory %+v, want %d bytes offloaded", m, all)
	}
	r.Free()
	w.Free()
}

// gated is a device whose executions wait before they end.
type gated struct {
	device.Device
	begun, end chan struct{}
}

type gatedRun struct {
	device.Run
	of *gated
}

func (g *gated) NewRun(t *device.Tape, w device.Weights, o device.RunOptions, further ...device.Weights) (device.Run, error) {
	r, err := g.Device.NewRun(t, w, o, further...)
	return gatedRun{r, g}, err
}

func (r gatedRun) Execute(ctx context.Context) error {
	r.of.begun <- struct{}{}
	<-r.of.end
	return r.Run.Execute(ctx)
}

// The device does what it is told one after another, and Execute returns when it has: what is written meanwhile is not seen,
// an execution that has begun goes on to its end though it is cancelled, and weights are offloaded behind it.
func TestCopyingIsAsynchronous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner, err := cpu.New(cpu.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		gate := &gated{inner, make(chan struct{}), make(chan struct{})}
		d := over(t, gate, devicetest.CopyingOptions{})
		n := devicetest.NewNetwork(1)
		n.Tape.Output("output", n.Tape.Activate(device.Activate{X: n.Input(0, 1, 4)}))
		w, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Free()
		r, err := d.NewRun(n.Tape, w, device.RunOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Free()
		v := make([]float32, 4)
		if err := r.Read("output", v); err != nil || v[0] == v[0] {
			t.Errorf("before an execution %v, %v; want NaN", v, err)
		}
		first, second := []float32{1, 2, 3, 4}, []float32{5, 6, 7, 8}
		written := slices.Clone(first)
		if err := r.Write("input.0", written); err != nil {
			t.Fatal(err)
		}
		written[0] = float32(math.Inf(1)) // it is the caller's again

		ctx, cancel := context.WithCancel(t.Context())
		executed, offloaded := make(chan error, 1), make(chan error, 1)
		go func() { executed <- r.Execute(ctx) }()
		<-gate.begun
		if err := r.Write("input.0", second); err != nil {
			t.Fatal(err)
		}
		go func() { offloaded <- w.Offload(context.Background()) }()
		cancel()
		synctest.Wait()
		if len(executed)+len(offloaded) != 0 {
			t.Error("cancelled or offloaded in the midst of an execution")
		}
		gate.end <- struct{}{}
		if err := <-executed; !errors.Is(err, context.Canceled) {
			t.Errorf("execute: %v, want context.Canceled", err)
		}
		if err := r.Read("output", v); err != nil || !slices.Equal(v, first) {
			t.Errorf("read %v, %v; want %v", v, err, first)
		}
		if err := errors.Join(<-offloaded, w.Onload(t.Context())); err != nil {
			t.Error(err)
		}
		go func() { executed <- r.Execute(t.Context()) }()
		<-gate.begun
		gate.end <- struct{}{}
		if err := errors.Join(<-executed, r.Read("output", v)); err != nil || !slices.Equal(v, second) {
			t.Errorf("read %v, %v; want %v", v, err, second)
		}
	})
}

// Weights that are partly on the device read the rest from the source each time, behind Offload and Onload as well.
func TestCopyingStreams(t *testing.T) {
	d, n := copying(t, devicetest.CopyingOptions{}), devicetest.Block(1, 2, 9)
	want := devicetest.Compute(t, d, n.Tape, n, n.Inputs)["output"]
	least, err := d.Fit(n.Manifest, 1)
	if err != nil {
		t.Fatal(err)
	}
	w, err := d.Load(t.Context(), n.Manifest, least, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Free()
	r, err := d.NewRun(n.Tape, w, device.RunOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Free()
	for name, v := range n.Inputs {
		if err := r.Write(name, v); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		got := make([]float32, len(want))
		if err := errors.Join(r.Execute(t.Context()), r.Read("output", got)); err != nil || !slices.Equal(got, want) {
			t.Errorf("other bits, or %v", err)
		}
		if err := errors.Join(w.Offload(t.Context()), w.Onload(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}
