package cpu_test

import (
	"path/filepath"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
)

// BenchmarkStarter runs the networks of models/starter on inputs of zeros, which take as long as
// others: a denoiser's step for a guided 16x16 latent, the decoder to 128x128, the text encoder.
func BenchmarkStarter(b *testing.B) {
	dir, err := modeldir.OpenStableDiffusion(filepath.Join("..", "..", "..", "models", "starter"))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("TextEncoder", func(b *testing.B) {
		e, err := dir.TextEncoder()
		if err != nil {
			b.Fatal(err)
		}
		tape, err := e.Tape(1, 77)
		benchmark(b, &e.Network, tape, err)
	})
	b.Run("Denoiser", func(b *testing.B) {
		u, err := dir.Denoiser()
		if err != nil {
			b.Fatal(err)
		}
		tape, err := u.Tape(2, 16, 16, 77)
		benchmark(b, &u.Network, tape, err)
	})
	b.Run("Decoder", func(b *testing.B) {
		v, err := dir.ImageDecoder()
		if err != nil {
			b.Fatal(err)
		}
		tape, err := v.Tape(1, 16, 16)
		benchmark(b, &v.Network, tape, err)
	})
}

func benchmark(b *testing.B, n *modeldir.Network, tape *device.Tape, err error) {
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	d := open(b, cpu.Options{})
	w, err := d.Load(b.Context(), n.Manifest(), device.LoadPlan{}, n.Source(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer w.Free()
	r, err := d.NewRun(tape, w, device.RunOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Free()
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Execute(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(products(tape)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GMAC/s")
	b.ReportMetric(float64(w.Bytes())/1e6, "weights-MB")
	b.ReportMetric(float64(r.Bytes())/1e6, "scratch-MB")
}

// products counts the multiply-adds of a tape's matrix products, convolutions and attentions behind its prologue.
func products(tape *device.Tape) float64 {
	sum := 0.0
	count := func(dims ...[]int) {
		p := 1.0
		for _, d := range dims {
			for _, n := range d {
				p *= float64(n)
			}
		}
		sum += p
	}
	for _, op := range tape.Ops()[tape.Prologue():] {
		switch o := op.(type) {
		case *device.Gemm:
			count(o.Out.Shape, tape.Manifest().At(o.W).Shape[1:])
		case *device.Conv2D:
			count(o.Out.Shape, tape.Manifest().At(o.W).Shape[1:])
		case *device.Attention:
			count(o.Q.Shape, o.K.Shape[1:2], []int{2})
		}
	}
	return sum
}
