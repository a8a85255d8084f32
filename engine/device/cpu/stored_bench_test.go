package cpu_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// BenchmarkStored multiplies by weights kept as float32, float16, bfloat16 and int8 in turn, and reports the time of
// the fastest of each as a percentage of float32's: what widening costs beside the multiply-adds, less what
// reading fewer bytes saves. The shapes are Stable Diffusion 1.5's, those with the fewest rows among them.
func BenchmarkStored(b *testing.B) {
	for _, c := range []struct {
		name        string
		x           []int // rows and inputs, or an image
		out, kernel int
	}{
		{name: "conv320/64x64", x: []int{1, 64, 64, 320}, out: 320, kernel: 3},
		{name: "conv1280/16x16x2", x: []int{2, 16, 16, 1280}, out: 1280, kernel: 3},
		{name: "conv1280/8x8x2", x: []int{2, 8, 8, 1280}, out: 1280, kernel: 3},
		{name: "geglu320/4096", x: []int{4096, 320}, out: 2560},
		{name: "proj1280/512", x: []int{512, 1280}, out: 1280},
		{name: "clip768/2x77", x: []int{154, 768}, out: 3072},
	} {
		b.Run(c.name, func(b *testing.B) {
			d := open(b, cpu.Options{})
			kinds := []struct {
				name             string
				stored, resident tensor.DType
			}{{"f32", tensor.F32, 0}, {"f16", tensor.F16, 0}, {"bf16", tensor.BF16, 0}, {"i8", tensor.F16, tensor.I8}, {"i4", tensor.F16, tensor.I4}}
			var runs []device.Run
			for _, k := range kinds {
				n := devicetest.NewNetwork(1)
				x, in := n.Input(0, c.x...), c.x[len(c.x)-1]
				if c.kernel == 0 {
					w := n.Param(device.Matrix, k.stored, 1/math.Sqrt(float64(in)), c.out, in)
					n.Tape.Output("out", n.Tape.Gemm(device.Gemm{X: x, W: w}))
				} else {
					w := n.Param(device.Filter, k.stored, 1/math.Sqrt(float64(9*in)), c.out, in, c.kernel, c.kernel)
					n.Tape.Output("out", n.Tape.Conv2D(device.Conv2D{X: x, W: w, Stride: 1, Top: 1, Left: 1, Bottom: 1, Right: 1}))
				}
				n.Manifest.Params[0].Resident = k.resident
				w, err := d.Load(b.Context(), n.Manifest, device.LoadPlan{}, n, nil)
				if err != nil {
					b.Fatal(err)
				}
				defer w.Free()
				r, err := d.NewRun(n.Tape, w, device.RunOptions{})
				if err != nil {
					b.Fatal(err)
				}
				defer r.Free()
				if err := r.Write("input.0", n.Inputs["input.0"]); err != nil {
					b.Fatal(err)
				}
				runs = append(runs, r)
			}
			best := map[string]time.Duration{}
			for b.Loop() {
				for i, k := range kinds {
					shorter(best, k.name, timed(func() {
						if err := runs[i].Execute(b.Context()); err != nil {
							b.Fatal(err)
						}
					}))
				}
			}
			b.ReportMetric(0, "ns/op") // it would hold all four
			b.ReportMetric(1e3*best["f32"].Seconds(), "f32-ms")
			for _, k := range kinds[1:] {
				b.ReportMetric(100*best[k.name].Seconds()/best["f32"].Seconds(), fmt.Sprintf("%%%s/f32", k.name))
			}
		})
	}
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func shorter(best map[string]time.Duration, name string, t time.Duration) {
	if old, ok := best[name]; !ok || t < old {
		best[name] = t
	}
}
