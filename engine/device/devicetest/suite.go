package devicetest

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Run is the suite. newDevice gives a device that nothing is loaded on, with a cap on its memory unless
// that is 0, and ends it with the test.
func Run(t *testing.T, newDevice func(t *testing.T, capBytes int64) device.Device) {
	t.Run("Ops", func(t *testing.T) { testOps(t, newDevice(t, 0)) })
	t.Run("Computes", func(t *testing.T) { testComputes(t, newDevice(t, 0)) })
	t.Run("Integers", func(t *testing.T) { testIntegers(t, newDevice(t, 0)) })
	t.Run("ResidentRefused", func(t *testing.T) { testResidentRefused(t, newDevice(t, 0)) })
	t.Run("Assembled", func(t *testing.T) { testAssembled(t, newDevice(t, 0)) })
	t.Run("AssembledRefused", func(t *testing.T) { testAssembledRefused(t, newDevice(t, 0)) })
	t.Run("Accounting", func(t *testing.T) { testAccounting(t, newDevice(t, 0)) })
	t.Run("ScratchLimit", func(t *testing.T) { testScratchLimit(t, newDevice(t, 0)) })
	t.Run("Streaming", func(t *testing.T) { testStreaming(t, newDevice(t, 0)) })
	t.Run("Convolutions", func(t *testing.T) { testConvolutions(t, newDevice(t, 0)) })
	t.Run("Cap", func(t *testing.T) { testCap(t, newDevice) })
	t.Run("LoadFails", func(t *testing.T) { testLoadFails(t, newDevice(t, 0)) })
	t.Run("Cancel", func(t *testing.T) { testCancel(t, newDevice(t, 0)) })
	t.Run("Freed", func(t *testing.T) { testFreed(t, newDevice(t, 0)) })
	t.Run("Fields", func(t *testing.T) { testFields(t, newDevice(t, 0)) })
	t.Run("Further", func(t *testing.T) { testFurther(t, newDevice(t, 0)) })
	t.Run("Terms", func(t *testing.T) { testTerms(t, newDevice(t, 0)) })
	t.Run("Weights", func(t *testing.T) { testWeights(t, newDevice(t, 0), newDevice(t, 0)) })
	t.Run("Again", func(t *testing.T) { testAgain(t, newDevice(t, 0)) })
	t.Run("Fixed", func(t *testing.T) { testFixed(t, newDevice(t, 0)) })
	t.Run("Offload", func(t *testing.T) { testOffload(t, newDevice(t, 0), device.RunOptions{}) })
	t.Run("OffloadLimited", func(t *testing.T) { testOffload(t, newDevice(t, 0), device.RunOptions{ScratchLimit: 1}) })
	t.Run("OffloadCap", func(t *testing.T) { testOffloadCap(t, newDevice) })
	t.Run("OffloadConcurrent", func(t *testing.T) { testOffloadConcurrent(t, newDevice(t, 0)) })
	t.Run("Concurrent", func(t *testing.T) { testConcurrent(t, newDevice(t, 0)) })
}

func load(t *testing.T, d device.Device, n *Network) device.Weights {
	t.Helper()
	w, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Free)
	return w
}

func newRun(t *testing.T, d device.Device, n *Network, w device.Weights, o device.RunOptions) device.Run {
	t.Helper()
	r, err := d.NewRun(n.Tape, w, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Free)
	return r
}

// What is said before an allocation is what is allocated, and it all goes back.
func testAccounting(t *testing.T, d device.Device) {
	n := Block(1, 2, 9)
	var progress []int64
	w, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, func(done int64) { progress = append(progress, done) })
	if err != nil {
		t.Fatal(err)
	}
	weights, want := w.Bytes(), d.WeightBytes(n.Manifest, device.LoadPlan{})
	if used := d.Memory().UsedBytes; weights != want || used != want || want == 0 {
		t.Errorf("weights: %d bytes, %d used, promised %d", weights, used, want)
	}
	if len(progress) != len(n.Manifest.Params) || !slices.IsSorted(progress) || progress[len(progress)-1] != want {
		t.Errorf("progress %v, want one rising number for each of %d parameters, last %d", progress, len(n.Manifest.Params), want)
	}
	scratch, err := d.ScratchBytes(n.Tape, device.RunOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.NewRun(n.Tape, w, device.RunOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if used := d.Memory().UsedBytes; r.Bytes() != scratch || used != weights+scratch || scratch == 0 {
		t.Errorf("scratch: %d bytes, %d used beside %d of weights, promised %d", r.Bytes(), used, weights, scratch)
	}
	r.Free()
	r.Free()
	if used := d.Memory().UsedBytes; used != weights {
		t.Errorf("%d bytes used without scratch, want %d", used, weights)
	}
	w.Free()
	w.Free()
	if m := d.Memory(); m != (device.Memory{PeakBytes: weights + scratch}) {
		t.Errorf("in the end %+v, want a peak of %d and nothing used", m, weights+scratch)
	}
}

// A limit on scratch changes what is taken, to what is said before, and not what is computed.
func testScratchLimit(t *testing.T, d device.Device) {
	n := Block(1, 2, 40)
	w := load(t, d, n)
	whole, least := scratchBytes(t, d, n, 0), scratchBytes(t, d, n, 1)
	if least > whole {
		t.Errorf("%d bytes at least, %d without a limit", least, whole)
	}
	want, err := Evaluate(n.Tape, n, n.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int64{1, least - 1, least, (least + whole) / 2, whole - 1, whole, whole + 1} {
		planned := scratchBytes(t, d, n, limit)
		if planned > max(limit, least) || limit >= whole && planned != whole {
			t.Errorf("within %d: %d bytes; the least is %d, without a limit %d", limit, planned, least, whole)
		}
		before := d.Memory().UsedBytes
		r := newRun(t, d, n, w, device.RunOptions{ScratchLimit: limit})
		if used := d.Memory().UsedBytes - before; r.Bytes() != planned || used != planned {
			t.Errorf("within %d: %d bytes, %d more used, promised %d", limit, r.Bytes(), used, planned)
		}
		write(t, r, n.Tape, n.Inputs)
		if err := r.Execute(t.Context()); err != nil {
			t.Fatal(err)
		}
		compare(t, "output", read(t, r, n.Tape)["output"], want["output"])
		r.Free()
		if used := d.Memory().UsedBytes; used != before {
			t.Errorf("within %d: %d bytes stay in use", limit, used-before)
		}
	}
}

func scratchBytes(t *testing.T, d device.Device, n *Network, limit int64) int64 {
	t.Helper()
	bytes, err := d.ScratchBytes(n.Tape, device.RunOptions{ScratchLimit: limit})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// The cap may be reached and not exceeded; what is refused leaves no trace.
func testCap(t *testing.T, newDevice func(*testing.T, int64) device.Device) {
	n := Block(1, 1, 8)
	d := newDevice(t, 0)
	overhead := d.OverheadBytes()
	weights := d.WeightBytes(n.Manifest, device.LoadPlan{})
	scratch, err := d.ScratchBytes(n.Tape, device.RunOptions{})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(d device.Device, err error, want device.MemoryError, used int64) {
		t.Helper()
		want.Device = d.Name()
		var got *device.MemoryError
		if !errors.Is(err, device.ErrOutOfMemory) || !errors.As(err, &got) || *got != want {
			t.Errorf("%v (%+v), want %+v", err, got, want)
		}
		if m := d.Memory(); m != (device.Memory{UsedBytes: used, PeakBytes: used, CapBytes: want.CapBytes, Refused: 1}) {
			t.Errorf("memory %+v, want %d used under the cap and one refusal", m, used)
		}
	}

	// Without a cap the machine refuses; 2^48 bytes are more than it can address.
	huge := NewNetwork(1)
	huge.Manifest.Add(device.Param{Name: "huge", Layout: device.Matrix, DType: tensor.F32, Shape: tensor.Shape{1 << 23, 1 << 23}})
	_, err = d.Load(t.Context(), huge.Manifest, device.LoadPlan{}, huge, func(int64) { t.Error("progress of a load that cannot fit") })
	if !errors.Is(err, device.ErrOutOfMemory) || d.Memory() != (device.Memory{Refused: 1}) {
		t.Errorf("%v and memory %+v, want %v and nothing used", err, d.Memory(), device.ErrOutOfMemory)
	}

	d = newDevice(t, overhead+weights-1)
	_, err = d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, func(int64) { t.Error("progress of a load that cannot fit") })
	refused(d, err, device.MemoryError{NeededBytes: weights, AvailableBytes: weights - 1, CapBytes: overhead + weights - 1}, 0)

	d = newDevice(t, overhead+weights+scratch-1)
	_, err = d.NewRun(n.Tape, load(t, d, n), device.RunOptions{})
	refused(d, err, device.MemoryError{NeededBytes: scratch, AvailableBytes: scratch - 1, CapBytes: overhead + weights + scratch - 1}, weights)

	d = newDevice(t, overhead+weights+scratch)
	w := load(t, d, n)
	newRun(t, d, n, w, device.RunOptions{}).Free()
	newRun(t, d, n, w, device.RunOptions{})
	_, err = d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
	refused(d, err, device.MemoryError{NeededBytes: weights, CapBytes: overhead + weights + scratch}, weights+scratch)
}

// A load that fails halfway gives back what it took.
func testLoadFails(t *testing.T, d device.Device) {
	broken := errors.New("the disk is gone")
	n := Block(1, 1, 8)
	last := n.Manifest.Params[len(n.Manifest.Params)-1].Name
	_, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, failing{n, last, broken}, nil)
	if !errors.Is(err, broken) {
		t.Errorf("%v, want the source's error", err)
	}
	n.data[last] = n.data[last][1:]
	_, err = d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
	wantField(t, err, "parameter "+last)
	n.Manifest.Params[1].DType = 0
	_, err = d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
	wantField(t, err, "parameter "+n.Manifest.Params[1].Name)
	if used := d.Memory().UsedBytes; used != 0 {
		t.Errorf("%d bytes stay in use", used)
	}
}

type failing struct {
	device.Source
	name string
	err  error
}

func (f failing) Section(name string) (*io.SectionReader, error) {
	if name == f.name {
		return nil, f.err
	}
	return f.Source.Section(name)
}

func testCancel(t *testing.T, d device.Device) {
	n := Block(1, 1, 8)
	ctx, cancel := context.WithCancelCause(t.Context())
	steps := 0
	_, err := d.Load(ctx, n.Manifest, device.LoadPlan{}, n, func(int64) {
		steps++
		cancel(nil)
	})
	if !errors.Is(err, context.Canceled) || steps != 1 {
		t.Errorf("load: %v behind %d parameters, want context.Canceled behind 1", err, steps)
	}
	if used := d.Memory().UsedBytes; used != 0 {
		t.Errorf("%d bytes stay in use", used)
	}
	r := newRun(t, d, n, load(t, d, n), device.RunOptions{})
	if err := r.Execute(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("execute: %v, want context.Canceled", err)
	}
	if err := r.Execute(t.Context()); err != nil {
		t.Errorf("execute behind a cancelled one: %v", err)
	}
}

// Executing again gives the same bits; inputs stay, and only those written change.
func testAgain(t *testing.T, d device.Device) {
	n, other := Block(1, 2, 9), Block(2, 2, 9)
	r := newRun(t, d, n, load(t, d, n), device.RunOptions{})
	write(t, r, n.Tape, n.Inputs)
	execute := func() []float32 {
		t.Helper()
		if err := r.Execute(t.Context()); err != nil {
			t.Fatal(err)
		}
		return read(t, r, n.Tape)["output"]
	}
	first := execute()
	if again := execute(); !slices.Equal(first, again) {
		t.Error("the second execution gives something else")
	}
	if err := r.Write("input.1", other.Inputs["input.1"]); err != nil {
		t.Fatal(err)
	}
	got := execute()
	n.Inputs["input.1"] = other.Inputs["input.1"]
	want, err := Evaluate(n.Tape, n, n.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "output", got, want["output"])
}

// Runs of one device may execute at once, over shared weights.
func testConcurrent(t *testing.T, d device.Device) {
	var group sync.WaitGroup
	defer group.Wait()
	n := Block(1, 1, 9)
	want := Compute(t, d, n.Tape, n, n.Inputs)["output"]
	w := load(t, d, n)
	for range 4 {
		r := newRun(t, d, n, w, device.RunOptions{})
		write(t, r, n.Tape, n.Inputs)
		group.Go(func() {
			for range 5 {
				if err := r.Execute(context.Background()); err != nil {
					t.Error(err)
				}
				got := make([]float32, len(want))
				if err := r.Read("output", got); err != nil || !slices.Equal(got, want) {
					t.Errorf("not what the run gives alone (%v)", err)
				}
				d.Memory()
			}
		})
	}
	group.Wait()
}
