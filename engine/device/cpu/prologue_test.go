package cpu

import (
	"context"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
)

// What depends on the context alone, the keys and values of cross-attention, is computed once for all
// executions under one context, and again in whole when an execution ended within it.
func TestPrologueRunsOnce(t *testing.T) {
	dir, err := modeldir.OpenStableDiffusion("../../../testdata/golden/tiny-sd15")
	if err != nil {
		t.Fatal(err)
	}
	net, err := dir.Denoiser()
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	tape, err := net.Tape(2, 16, 16, 77)
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	w, err := d.Load(t.Context(), net.Manifest(), device.LoadPlan{}, net.Source(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Free()
	made, err := d.NewRun(tape, w, device.RunOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer made.Free()
	r := made.(*run)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	executed, cancelAt := 0, 0
	for _, jobs := range r.jobs {
		first := jobs[0]
		do := first.do
		first.do = func(thread, task int) {
			if task == 0 {
				if executed++; executed == cancelAt {
					cancel()
				}
			}
			do(thread, task)
		}
	}
	count := func(ctx context.Context) int {
		executed = 0
		if err := r.Execute(ctx); err != nil && ctx.Err() == nil {
			t.Fatal(err)
		}
		return executed
	}
	all, prologue := len(tape.Ops()), tape.Prologue()
	values := make([]float32, 2*77*net.Config.ContextDim)
	write := func(input string, n int) {
		t.Helper()
		if err := r.Write(input, values[:n]); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d ops were executed, want %d", what, got, want)
		}
	}
	check("first", count(t.Context()), all)
	check("again", count(t.Context()), all-prologue)
	write(modeldir.InputTime, net.Config.Channels[0])
	check("at another time", count(t.Context()), all-prologue)
	write(modeldir.InputContext, len(values))
	check("under another context", count(t.Context()), all)
	write(modeldir.InputContext, len(values))
	cancelAt = prologue - 1
	check("cancelled", count(ctx), cancelAt)
	cancelAt = 0
	check("behind the cancelled one", count(t.Context()), all)
	check("in the end", count(t.Context()), all-prologue)
}
