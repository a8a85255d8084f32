package devicetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// prologue is a network whose ops on two fixed inputs (input.0, input.1) stand between ops on an ordinary
// one (input.2), in chains, with a result that several later ops use, one that none uses and one that
// is an output. The ordinary arrays are large enough to want the memory of what must stay.
func prologue(seed uint64) *Network {
	n := NewNetwork(seed)
	t := n.Tape
	mat := func(out, in int) device.Weight {
		return n.Param(device.Matrix, tensor.F32, 1/math.Sqrt(float64(in)), out, in)
	}
	a, b, x := n.FixedInput(2, 11, 24), n.FixedInput(2, 11, 24), n.Input(0, 2, 90, 32)
	h := t.Gemm(device.Gemm{X: x, W: mat(32, 32), Act: device.SiLU})
	both := t.Concat(device.Concat{A: a, B: b})
	both = t.LayerNorm(device.LayerNorm{X: both, Gamma: n.Param(device.Vector, tensor.F32, 1, 48), Beta: n.Param(device.Vector, tensor.F32, 1, 48), Eps: 1e-5})
	keys := t.Gemm(device.Gemm{X: both, W: mat(32, 48)})
	values := t.Gemm(device.Gemm{X: t.Reshape(a, 2, 11, 24), W: mat(32, 24)})
	for range 2 {
		h = t.Attention(device.Attention{Q: h, K: keys, V: values, Heads: 2})
	}
	h = t.Gemm(device.Gemm{X: h, W: mat(32, 32), Residual: x})
	t.Output("fixed", t.Activate(device.Activate{X: b, Act: device.GELU}))
	t.Activate(device.Activate{X: keys, Act: device.SiLU})
	for range 3 {
		h = t.Gemm(device.Gemm{X: h, W: mat(64, 32), Act: device.SiLU})
		h = t.GEGLU(device.GEGLU{X: h})
	}
	t.Output("output", h)
	return n
}

// Whatever is written between executions, fixed or not, all or some: outputs are what the tape
// defines. What is not written gives the same bits again.
func testFixed(t *testing.T, d device.Device) {
	n := prologue(5)
	if got, want := n.Tape.Prologue(), 6; got != want || len(n.Tape.Ops()) != want+10 {
		t.Fatalf("%d of %d ops are the prologue, want %d of %d", got, len(n.Tape.Ops()), want, want+10)
	}
	r := newRun(t, d, n, load(t, d, n), device.RunOptions{})
	write(t, r, n.Tape, n.Inputs)
	execute := func(what string) map[string][]float32 {
		t.Helper()
		if err := r.Execute(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := read(t, r, n.Tape)
		want, err := Evaluate(n.Tape, n, n.Inputs)
		if err != nil {
			t.Fatal(err)
		}
		for name := range want {
			compare(t, what+": "+name, got[name], want[name])
		}
		return got
	}
	change := func(input string) {
		t.Helper()
		for i := range n.Inputs[input] {
			n.Inputs[input][i] = n.normal(i)
		}
		if err := r.Write(input, n.Inputs[input]); err != nil {
			t.Fatal(err)
		}
	}
	first := execute("first")
	if again := execute("nothing written"); !maps.EqualFunc(first, again, slices.Equal) {
		t.Error("nothing written: other bits")
	}
	for _, written := range [][]string{{"input.2"}, {"input.0"}, {"input.2"}, {"input.1", "input.2"}, {"input.0", "input.1"}, {}} {
		for _, input := range written {
			change(input)
		}
		execute(fmt.Sprintf("written %v", written))
	}

	change("input.0")
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(nil)
	if err := r.Execute(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("execute: %v, want context.Canceled", err)
	}
	execute("written before a cancelled execution")
}
