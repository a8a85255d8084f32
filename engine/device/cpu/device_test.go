package cpu_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/kernel"
)

func open(t testing.TB, o cpu.Options) *cpu.Device {
	t.Helper()
	d, err := cpu.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // it always returns nil
	return d
}

// forEachVariant runs f with every implementation of the kernels, as subtests.
func forEachVariant(t *testing.T, f func(t *testing.T)) {
	chosen := kernel.Variant()
	defer func() {
		if err := kernel.Select(chosen); err != nil {
			t.Error(err)
		}
	}()
	for _, v := range kernel.Variants() {
		if err := kernel.Select(v); err != nil {
			t.Fatal(err)
		}
		t.Run(v, f)
	}
}

func TestConformance(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		for _, o := range []cpu.Options{
			{Threads: 1},
			{Threads: 3},
			{Threads: 3, Conv: cpu.Direct},
			{Threads: 2, Conv: cpu.Winograd2},
			{Threads: 3, Conv: cpu.Winograd4},
		} {
			t.Run(fmt.Sprintf("threads=%d%s", o.Threads, o.Conv), func(t *testing.T) {
				devicetest.Run(t, func(t *testing.T, capBytes int64) device.Device {
					o.MemoryCapBytes = capBytes
					return open(t, o)
				})
			})
		}
	})
}

// How many threads compute is not to be seen in the result.
func TestThreadsGiveTheSameBits(t *testing.T) {
	forEachVariant(t, func(t *testing.T) {
		for _, size := range []int{5, 40} {
			for _, conv := range []cpu.Algorithm{cpu.Direct, cpu.Winograd2, cpu.Winograd4} {
				n := devicetest.Block(3, 2, size)
				want := devicetest.Compute(t, open(t, cpu.Options{Threads: 1, Conv: conv}), n.Tape, n, n.Inputs)["output"]
				for _, threads := range []int{2, 3, 8} {
					got := devicetest.Compute(t, open(t, cpu.Options{Threads: threads, Conv: conv}), n.Tape, n, n.Inputs)["output"]
					if !slices.Equal(got, want) {
						t.Errorf("size %d, %s: %d threads give something else than 1", size, conv, threads)
					}
				}
			}
		}
	})
}

// An attention's scratch is the same for twice the tokens, but for the arrays.
func TestAttentionScratch(t *testing.T) {
	const c = 320
	d := open(t, cpu.Options{Threads: 2})
	own := func(tokens int) int64 {
		n := devicetest.NewNetwork(1)
		input := func() device.Array { return n.Input(0, 1, tokens, c) }
		n.Tape.Output("output", n.Tape.Attention(device.Attention{Q: input(), K: input(), V: input(), Heads: 8}))
		bytes, err := d.ScratchBytes(n.Tape)
		if err != nil {
			t.Fatal(err)
		}
		return bytes - 4*4*int64(tokens*c)
	}
	if a, b := own(4096), own(8192); a != b || a > 2<<20 {
		t.Errorf("%d bytes for 4096 tokens and %d for 8192, want the same and at most 1 MiB a thread", a, b)
	}
}

func TestExecuteAllocates(t *testing.T) {
	n := devicetest.Block(1, 2, 16)
	d := open(t, cpu.Options{Threads: 2})
	w, err := d.Load(t.Context(), n.Manifest, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Free()
	r, err := d.NewRun(n.Tape, w)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Free()
	execute := func() {
		if err := r.Execute(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if allocs := testing.AllocsPerRun(20, execute); allocs != 0 {
		t.Errorf("%v allocations for each execution, want none", allocs)
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		field string
		o     cpu.Options
	}{
		{"Index", cpu.Options{Index: -1}},
		{"Threads", cpu.Options{Threads: -1}},
		{"Threads", cpu.Options{Threads: 1 << 30}},
		{"MemoryCapBytes", cpu.Options{MemoryCapBytes: -1}},
		{"Conv", cpu.Options{Conv: "winograd6"}},
	} {
		_, err := cpu.New(c.o)
		var f *device.FieldError
		if !errors.As(err, &f) || f.Field != "option "+c.field {
			t.Errorf("%+v: error %v, want a FieldError of option %s", c.o, err, c.field)
		}
	}
	if name := open(t, cpu.Options{Index: 3}).Name(); name != "cpu:3" {
		t.Errorf("name %q, want cpu:3", name)
	}
}

func TestClosed(t *testing.T) {
	n := devicetest.Block(1, 1, 8)
	d := open(t, cpu.Options{Threads: 2})
	w, err := d.Load(t.Context(), n.Manifest, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.NewRun(n.Tape, w)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Execute(t.Context()); !errors.Is(err, device.ErrFreed) {
		t.Errorf("execute: %v, want %v", err, device.ErrFreed)
	}
	if _, err := d.Load(t.Context(), n.Manifest, n, nil); !errors.Is(err, device.ErrFreed) {
		t.Errorf("load: %v, want %v", err, device.ErrFreed)
	}
	r.Free()
	w.Free()
	if used := d.Memory().UsedBytes; used != 0 {
		t.Errorf("%d bytes stay in use", used)
	}
}
