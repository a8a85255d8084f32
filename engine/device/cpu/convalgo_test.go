package cpu

import (
	"errors"
	"maps"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// TestConvolutions counts one tape's convolutions as they are chosen, forced, and chosen for bands.
func TestConvolutions(t *testing.T) {
	m := &device.Manifest{}
	tape := device.NewTape(m)
	filter := func(name string, in, out, side int) device.Weight {
		return m.Add(device.Param{Name: name, Layout: device.Filter, DType: tensor.F32, Shape: tensor.Shape{out, in, side, side}})
	}
	padded := device.Conv2D{Stride: 1, Top: 1, Bottom: 1, Left: 1, Right: 1}
	conv := func(x device.Array, w device.Weight, stride int) device.Array {
		op := padded
		op.X, op.W, op.Stride = x, w, stride
		return tape.Conv2D(op)
	}
	x := conv(tape.Input("x", 1, 256, 256, 8), filter("first", 8, 64, 3), 1)
	x = conv(x, filter("second", 64, 64, 3), 1)
	x = conv(x, filter("half", 64, 8, 3), 2)
	tape.Output("y", x)
	tape.Output("z", conv(tape.Input("small", 1, 3, 3, 8), filter("third", 8, 8, 3), 1))
	if tape.Err() != nil {
		t.Fatal(tape.Err())
	}
	for _, c := range []struct {
		forced Algorithm
		within int64 // 0 for none
		want   map[string]int
	}{
		{"", 0, map[string]int{"winograd4": 2, "direct": 2}},
		{"", 1, map[string]int{"winograd4": 2, "direct": 2}},
		{"", 1 << 40, map[string]int{"winograd4": 2, "direct": 2}},
		{Winograd2, 0, map[string]int{"winograd2": 3, "direct": 1}},
		{Winograd4, 1, map[string]int{"winograd4": 3, "direct": 1}},
		{Direct, 0, map[string]int{"direct": 4}},
	} {
		t.Setenv(ConvEnv, "")
		d, err := New(Options{Threads: 2, Conv: c.forced})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if got, err := d.Convolutions(tape, device.RunOptions{ScratchLimit: c.within}); err != nil || !maps.Equal(got, c.want) {
			t.Errorf("forced %q, within %d: %v, %v, want %v", c.forced, c.within, got, err, c.want)
		}
	}

	// Many small images fill as many tiles as a large one; a band is one image.
	batch := device.NewTape(m)
	op := padded
	op.X, op.W = batch.Input("x", 64, 4, 4, 64), filter("batched", 64, 64, 3)
	batch.Output("y", batch.Conv2D(op))
	d, err := New(Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	whole, err1 := d.Convolutions(batch, device.RunOptions{})
	banded, err2 := d.Convolutions(batch, device.RunOptions{ScratchLimit: 1})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(whole, map[string]int{"winograd4": 1}) || !maps.Equal(banded, map[string]int{"direct": 1}) {
		t.Errorf("whole %v, in bands %v", whole, banded)
	}
}
