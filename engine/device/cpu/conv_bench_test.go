package cpu_test

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// convShape is a convolution 3x3 with stride 1 of [batch, side, side, in] to out channels; x is half that side with up.
type convShape struct {
	batch, side, in, out int
	up                   bool
}

func (c convShape) String() string {
	up := ""
	if c.up {
		up = "up"
	}
	return fmt.Sprintf("%dx%dx%d%s_%d-%d", c.batch, c.side, c.side, up, c.in, c.out)
}

// convShapes are those of Stable Diffusion 1.5 for 512x512 with guidance, and of models/starter for 128x128.
var convShapes = []convShape{
	// The U-Net.
	{2, 64, 320, 320, false},
	{2, 64, 640, 320, false},
	{2, 64, 960, 320, false},
	{2, 64, 640, 640, true},
	{2, 32, 320, 640, false},
	{2, 32, 640, 640, false},
	{2, 32, 960, 640, false},
	{2, 32, 1280, 640, false},
	{2, 32, 1920, 640, false},
	{2, 32, 1280, 1280, true},
	{2, 16, 640, 1280, false},
	{2, 16, 1280, 1280, false},
	{2, 16, 1920, 1280, false},
	{2, 16, 2560, 1280, false},
	{2, 16, 1280, 1280, true},
	{2, 8, 1280, 1280, false},
	{2, 8, 2560, 1280, false},
	{2, 64, 4, 320, false},
	{2, 64, 320, 4, false},
	// The decoder.
	{1, 64, 4, 512, false},
	{1, 64, 512, 512, false},
	{1, 128, 512, 512, true},
	{1, 128, 512, 512, false},
	{1, 256, 512, 512, true},
	{1, 256, 512, 256, false},
	{1, 256, 256, 256, false},
	{1, 512, 256, 256, true},
	{1, 512, 256, 128, false},
	{1, 512, 128, 128, false},
	{1, 512, 128, 3, false},
	// The starter model's U-Net.
	{2, 16, 8, 64, false},
	{2, 16, 64, 64, false},
	{2, 16, 128, 64, false},
	{2, 16, 192, 64, false},
	{2, 8, 64, 128, false},
	{2, 8, 128, 128, false},
	{2, 8, 256, 128, false},
	{2, 8, 320, 128, false},
	{2, 4, 192, 192, false},
	{2, 4, 384, 192, false},
	// The starter model's decoder.
	{1, 16, 96, 96, false},
	{1, 32, 96, 96, true},
	{1, 32, 96, 96, false},
	{1, 64, 64, 64, false},
	{1, 128, 32, 32, false},
	{1, 128, 16, 16, false},
	{1, 128, 16, 3, false},
}

// BenchmarkConv computes every shape by every algorithm, on one and on two threads, in turn with FMAPeak on as many. It
// reports the least time, and the multiply-adds of the direct sum done in it as a share of what the least time of
// FMAPeak allows: more than 100 % for Winograd.
func BenchmarkConv(b *testing.B) {
	for _, shape := range convShapes {
		for _, threads := range []int{1, 2} {
			for _, algorithm := range []cpu.Algorithm{cpu.Direct, cpu.Winograd2, cpu.Winograd4} {
				b.Run(fmt.Sprintf("%v/threads=%d/%s", shape, threads, algorithm), func(b *testing.B) {
					benchmarkConv(b, shape, threads, algorithm)
				})
			}
		}
	}
}

func benchmarkConv(b *testing.B, c convShape, threads int, algorithm cpu.Algorithm) {
	n := devicetest.NewNetwork(1)
	side := c.side
	if c.up {
		side /= 2
	}
	x := n.Input(0, c.batch, side, side, c.in)
	w := n.Param(device.Filter, tensor.F16, 1/math.Sqrt(float64(9*c.in)), c.out, c.in, 3, 3)
	op := device.Conv2D{X: x, W: w, Bias: n.Param(device.Vector, tensor.F32, 1, c.out), Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1, Upsample: c.up}
	n.Tape.Output("out", n.Tape.Conv2D(op))
	d := open(b, cpu.Options{Threads: threads, Conv: algorithm})
	lw, err := d.Load(b.Context(), n.Manifest, n, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer lw.Free()
	r, err := d.NewRun(n.Tape, lw)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Free()
	if err := r.Write("input.0", n.Inputs["input.0"]); err != nil {
		b.Fatal(err)
	}
	least, peak := math.Inf(1), math.Inf(1)
	const rounds = 100_000 // of 12 products of 8 values, 96 multiply-adds
	for b.Loop() {
		least = min(least, seconds(func() {
			if err := r.Execute(b.Context()); err != nil {
				b.Fatal(err)
			}
		}))
		peak = min(peak, seconds(func() { fmaPeak(threads, rounds) }))
	}
	products := float64(c.batch*c.side*c.side*c.out) * float64(9*c.in)
	b.ReportMetric(0, "ns/op") // it would hold the peak's time too
	b.ReportMetric(1e3*least, "ms")
	b.ReportMetric(100*products/least/(float64(threads)*rounds*kernel.PeakFlops/2/peak), "%peak")
	b.ReportMetric(float64(r.Bytes())/1e6, "scratch-MB")
}

func seconds(f func()) float64 {
	start := time.Now()
	f()
	return time.Since(start).Seconds()
}

func fmaPeak(threads, rounds int) {
	var group sync.WaitGroup
	for range threads {
		group.Go(func() { kernel.FMAPeak(rounds) })
	}
	group.Wait()
}
