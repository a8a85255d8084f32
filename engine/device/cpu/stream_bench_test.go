package cpu_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
)

// BenchmarkStreamed compares evaluations of a guided denoiser and of a text encoder whose weights are resident with
// those of which nothing is, in turns, so that both see the same machine; it reports the best of each. bench/.cache/sd15
// is a model of the size of Stable Diffusion 1.5, if it is there.
func BenchmarkStreamed(b *testing.B) {
	for _, c := range []struct {
		model string
		side  int // of a latent
	}{{"models/starter", 16}, {"bench/.cache/sd15", 64}} {
		dir, err := modeldir.OpenStableDiffusion(filepath.Join("..", "..", "..", c.model))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			b.Fatal(err)
		}
		b.Run(filepath.Base(c.model)+"/encoder", func(b *testing.B) {
			e, err := dir.TextEncoder()
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			tape, err := e.Tape(2, 77)
			compareStreamed(b, &e.Network, tape, err)
		})
		b.Run(filepath.Base(c.model)+"/denoiser", func(b *testing.B) {
			u, err := dir.Denoiser()
			if err != nil {
				b.Fatal(err)
			}
			defer u.Close()
			tape, err := u.Tape(2, c.side, c.side, 77)
			compareStreamed(b, &u.Network, tape, err)
		})
	}
}

func compareStreamed(b *testing.B, n *modeldir.Network, tape *device.Tape, err error) {
	if err != nil {
		b.Fatal(err)
	}
	d := open(b, cpu.Options{})
	names := []string{"resident", "streamed"}
	best := map[string]time.Duration{}
	var runs []device.Run
	var held []int64
	for i := range names {
		w, err := d.Load(b.Context(), n.Manifest(), device.LoadPlan{Streamed: i == 1}, n.Source(), nil)
		if err != nil {
			b.Fatal(err)
		}
		defer w.Free()
		r, err := d.NewRun(tape, w, device.RunOptions{})
		if err != nil {
			b.Fatal(err)
		}
		defer r.Free()
		if err := r.Execute(b.Context()); err != nil { // with the prologue
			b.Fatal(err)
		}
		runs, held = append(runs, r), append(held, w.Bytes())
	}
	for b.Loop() {
		for i, name := range names {
			shorter(best, name, timed(func() {
				if err := runs[i].Execute(b.Context()); err != nil {
					b.Fatal(err)
				}
			}))
		}
	}
	b.ReportMetric(0, "ns/op") // of both
	for i, name := range names {
		b.ReportMetric(float64(held[i])/1e6, name+"-MB")
		b.ReportMetric(best[name].Seconds()*1e3, name+"-ms")
	}
	b.ReportMetric(100*(best["streamed"].Seconds()/best["resident"].Seconds()-1), "%slower")
}
