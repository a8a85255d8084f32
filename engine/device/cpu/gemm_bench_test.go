package cpu_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// BenchmarkGemm runs products of Stable Diffusion 1.5: rows of both images of a guided step (or both prompts) by
// inputs and outputs. It reports the best round as a share of the FMA peak of as many threads, taken beside each
// round.
func BenchmarkGemm(b *testing.B) {
	for _, s := range [][3]int{
		{8192, 320, 320},
		{8192, 320, 2560},
		{8192, 1280, 320},
		{2048, 640, 640},
		{2048, 2560, 640},
		{512, 1280, 1280},
		{512, 1280, 10240},
		{512, 5120, 1280},
		{128, 1280, 1280},
		{154, 768, 320},
		{154, 768, 3072},
		{154, 3072, 768},
		{2, 1280, 320},
	} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%dx%dx%d/threads%d", s[0], s[1], s[2], threads), func(b *testing.B) {
				var m device.Manifest
				w := m.Add(device.Param{Name: "w", Layout: device.Matrix, DType: tensor.F16, Shape: tensor.Shape{s[2], s[1]}})
				t := device.NewTape(&m)
				t.Output("out", t.Gemm(device.Gemm{X: t.Input("x", s[0], s[1]), W: w}))
				shareOfPeak(b, t, threads)
			})
		}
	}
}

// randomSource gives every parameter, by its number of elements, random F16 values between 1/16 and 1/2 of either sign.
type randomSource map[string]int

func (s randomSource) Data(name string) ([]byte, error) {
	r, v := rand.New(rand.NewPCG(1, 2)), make([]byte, 0, 2*s[name])
	for range s[name] {
		v = binary.LittleEndian.AppendUint16(v, uint16(0x2c00+r.IntN(0x0c00)|r.IntN(2)<<15))
	}
	return v, nil
}

func shareOfPeak(b *testing.B, t *device.Tape, threads int) {
	d := open(b, cpu.Options{Threads: threads})
	source := randomSource{}
	for _, p := range t.Manifest().Params {
		source[p.Name], _ = p.Shape.Elems()
	}
	w, err := d.Load(b.Context(), t.Manifest(), source, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer w.Free()
	r, err := d.NewRun(t, w)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Free()
	best, peak := time.Duration(1<<62), 0.0
	for b.Loop() {
		start := time.Now()
		if err := r.Execute(b.Context()); err != nil {
			b.Fatal(err)
		}
		best = min(best, time.Since(start))
		peak = max(peak, peakOf(threads))
	}
	rate := 2 * products(t) / best.Seconds()
	b.ReportMetric(rate/1e9, "GFLOP/s")
	b.ReportMetric(100*rate/peak, "%peak")
}

// peakOf is the multiply-add rate of so many threads at once, by a millisecond of each.
func peakOf(threads int) float64 {
	const rounds = 100_000
	start := time.Now()
	var all sync.WaitGroup
	for range threads {
		all.Go(func() {
			for range 10 {
				kernel.FMAPeak(rounds / 10)
			}
		})
	}
	all.Wait()
	return float64(threads) * rounds * kernel.PeakFlops / time.Since(start).Seconds()
}
