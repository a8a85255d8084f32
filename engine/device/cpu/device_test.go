package cpu_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/tensor"
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

// policy is a device whose loads keep to a plan, and whose runs to options, unless they have others.
type policy struct {
	device.Device
	load device.LoadPlan
	run  device.RunOptions
}

func (p policy) WeightBytes(m *device.Manifest, l device.LoadPlan) int64 {
	return p.Device.WeightBytes(m, cmp.Or(l, p.load))
}

func (p policy) Load(ctx context.Context, m *device.Manifest, l device.LoadPlan, src device.Source, progress func(int64)) (device.Weights, error) {
	return p.Device.Load(ctx, m, cmp.Or(l, p.load), src, progress)
}

func (p policy) ScratchBytes(t *device.Tape, o device.RunOptions) (int64, error) {
	return p.Device.ScratchBytes(t, cmp.Or(o, p.run))
}

func (p policy) NewRun(t *device.Tape, w device.Weights, o device.RunOptions, further ...device.Weights) (device.Run, error) {
	return p.Device.NewRun(t, w, cmp.Or(o, p.run), further...)
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
			{Threads: 3, Emulate: true},
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
		bytes, err := d.ScratchBytes(n.Tape, device.RunOptions{})
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
	output := make([]float32, 2*16*16*24)
	evaluate := func() {
		for name, v := range n.Inputs {
			if err := r.Write(name, v); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(r.Execute(t.Context()), r.Read("output", output)); err != nil {
			t.Fatal(err)
		}
	}
	if allocs := testing.AllocsPerRun(20, evaluate); allocs != 0 {
		t.Errorf("%v allocations for each evaluation, want none", allocs)
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
	t.Setenv(cpu.ConvEnv, "fft")
	_, err := cpu.New(cpu.Options{})
	var f *device.FieldError
	if !errors.As(err, &f) || f.Field != cpu.ConvEnv || f.Got != "fft" {
		t.Errorf("error %v, want a FieldError of %s", err, cpu.ConvEnv)
	}
	t.Setenv(cpu.ConvEnv, "")
	if name := open(t, cpu.Options{Index: 3}).Name(); name != "cpu:3" {
		t.Errorf("name %q, want cpu:3", name)
	}
}

// The choice for a convolution is the setting's where it can be, then the environment's, then the fastest.
func TestAlgorithm(t *testing.T) {
	n := devicetest.NewNetwork(1)
	algorithm := func(o cpu.Options, images, h, w, kernel, stride int) cpu.Algorithm {
		filter := n.Param(device.Filter, tensor.F16, 1, 16, 8, kernel, kernel)
		op := device.Conv2D{X: n.Input(0, images, h, w, 8), W: filter, Stride: stride, Top: 1, Left: 1, Bottom: 1, Right: 1}
		op.Out = n.Tape.Conv2D(op)
		return open(t, o).Algorithm(&op, n.Manifest)
	}
	for _, c := range []struct {
		conv                         cpu.Algorithm
		images, h, w, kernel, stride int
		want                         cpu.Algorithm
	}{
		{"", 1, 64, 64, 3, 1, cpu.Winograd4},
		{"", 2, 8, 8, 3, 1, cpu.Winograd4},
		{"", 2, 4, 4, 3, 1, cpu.Winograd2},
		{"", 1, 6, 6, 3, 1, cpu.Winograd2},
		{"", 1, 4, 4, 3, 1, cpu.Direct},
		{"", 1, 64, 64, 3, 2, cpu.Direct},
		{"", 1, 64, 64, 1, 1, cpu.Direct},
		{cpu.Direct, 1, 64, 64, 3, 1, cpu.Direct},
		{cpu.Winograd2, 1, 64, 64, 3, 1, cpu.Winograd2},
		{cpu.Winograd4, 1, 4, 4, 3, 1, cpu.Winograd4},
		{cpu.Winograd4, 1, 64, 64, 3, 2, cpu.Direct},
		{cpu.Winograd4, 1, 64, 64, 5, 1, cpu.Direct},
	} {
		if got := algorithm(cpu.Options{Conv: c.conv}, c.images, c.h, c.w, c.kernel, c.stride); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
	t.Setenv(cpu.ConvEnv, string(cpu.Winograd2))
	for option, want := range map[cpu.Algorithm]cpu.Algorithm{"": cpu.Winograd2, cpu.Direct: cpu.Direct} {
		if got := algorithm(cpu.Options{Conv: option}, 1, 64, 64, 3, 1); got != want {
			t.Errorf("%s=%s and option %q: got %s", cpu.ConvEnv, cpu.Winograd2, option, got)
		}
	}
}

func TestClosed(t *testing.T) {
	n := devicetest.Block(1, 1, 8)
	d := open(t, cpu.Options{Threads: 2})
	w, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.NewRun(n.Tape, w, device.RunOptions{})
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
	if _, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{}, n, nil); !errors.Is(err, device.ErrFreed) {
		t.Errorf("load: %v, want %v", err, device.ErrFreed)
	}
	r.Free()
	w.Free()
	if used := d.Memory().UsedBytes; used != 0 {
		t.Errorf("%d bytes stay in use", used)
	}
}
