package cpu

import (
	"path/filepath"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
)

// work is what a network costs on two threads, in numbers that no other load of the machine changes.
type work struct {
	Weights, Scratch int64 // bytes
	Ops, Jobs, Tasks int   // a job is a barrier between threads, a task what one of them claims
}

// What the starter model costs with AVX2, or without it, and 512 KiB of L2. Whoever changes a number says in the commit why it is worth it.
func TestWork(t *testing.T) {
	measured, variant := l2, kernel.Variant()
	t.Cleanup(func() {
		l2 = measured
		if err := kernel.Select(variant); err != nil {
			t.Error(err)
		}
	})
	l2 = func() int64 { return 512 << 10 }
	if variant == kernel.AVX512 {
		if err := kernel.Select(kernel.AVX2); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := modeldir.OpenStableDiffusion(filepath.Join("..", "..", "..", "models", "starter"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := dir.TextEncoder()
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	unet, err := dir.Denoiser()
	if err != nil {
		t.Fatal(err)
	}
	defer unet.Close()
	vae, err := dir.ImageDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer vae.Close()
	for _, c := range []struct {
		name   string
		net    *modeldir.Network
		record func() (*device.Tape, error)
		want   work
	}{
		{"text encoder, 2 prompts", &text.Network, func() (*device.Tape, error) { return text.Tape(2, 77) }, work{Weights: 1800704, Scratch: 545920, Ops: 29, Jobs: 29, Tasks: 184}},
		{"U-Net, batch 2, 16x16", &unet.Network, func() (*device.Tape, error) { return unet.Tape(2, 16, 16, 77) }, work{Weights: 17655872, Scratch: 4557312, Ops: 212, Jobs: 238, Tasks: 1278}},
		{"VAE decoder to 128x128", &vae.Network, func() (*device.Tape, error) { return vae.Tape(1, 16, 16) }, work{Weights: 2161344, Scratch: 6332672, Ops: 56, Jobs: 127, Tasks: 888}},
	} {
		tape, err := c.record()
		if err != nil {
			t.Fatal(err)
		}
		if got := workOf(t, c.net, tape); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func workOf(t *testing.T, n *modeldir.Network, tape *device.Tape) work {
	t.Helper()
	t.Setenv(ConvEnv, "")
	d, err := New(Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	w, err := d.load(t.Context(), n.Manifest(), device.LoadPlan{}, n.Source(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Free()
	p, err := d.program(tape)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.newWholeRun(tape, w, p)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Free()
	got := work{Weights: w.plan.bytes, Scratch: p.bytes(), Ops: len(r.jobs)}
	for _, op := range r.jobs {
		for _, j := range op {
			got.Jobs, got.Tasks = got.Jobs+1, got.Tasks+j.tasks
		}
	}
	return got
}
