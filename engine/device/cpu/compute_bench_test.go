package cpu_test

import (
	"math"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// BenchmarkBF16 runs ops at the shapes of SDXL's U-Net for two images of 1024x1024 in turn in float32 and in bfloat16, and
// tells the processor time of both, the least of several.
func BenchmarkBF16(b *testing.B) {
	gemm := func(rows, k, n int) func(*devicetest.Network) device.Array {
		return func(net *devicetest.Network) device.Array {
			return net.Tape.Gemm(device.Gemm{X: net.Input(0, 2, rows, k), W: net.Param(device.Matrix, tensor.F16, 0.01, n, k), Bias: net.Param(device.Vector, tensor.F32, 1, n)})
		}
	}
	conv := func(side, k, n, kernel, stride int) func(*devicetest.Network) device.Array {
		return func(net *devicetest.Network) device.Array {
			pad := kernel / 2
			return net.Tape.Conv2D(device.Conv2D{
				X: net.Input(0, 2, side, side, k), W: net.Param(device.Filter, tensor.F16, 0.01, n, k, kernel, kernel), Bias: net.Param(device.Vector, tensor.F32, 1, n),
				Stride: stride, Top: pad, Left: pad, Bottom: pad, Right: pad,
			})
		}
	}
	attention := func(queries, keys, heads int) func(*devicetest.Network) device.Array {
		return func(net *devicetest.Network) device.Array {
			kv := func() device.Array { return net.Input(0, 2, keys, 64*heads) }
			return net.Tape.Attention(device.Attention{Q: net.Input(0, 2, queries, 64*heads), K: kv(), V: kv(), Heads: heads})
		}
	}
	for _, c := range []struct {
		name   string
		record func(*devicetest.Network) device.Array
	}{
		{"gemm 1024x1280 to 1280", gemm(1024, 1280, 1280)},
		{"gemm 1024x1280 to 10240", gemm(1024, 1280, 10240)},
		{"gemm 1024x5120 to 1280", gemm(1024, 5120, 1280)},
		{"gemm 4096x640 to 640", gemm(4096, 640, 640)},
		{"gemm 77x2048 to 1280", gemm(77, 2048, 1280)},
		{"conv1x1 128x128 960 to 320", conv(128, 960, 320, 1, 1)},
		{"conv3x3 128x128 320 to 320", conv(128, 320, 320, 3, 1)},
		{"conv3x3 32x32 1280 to 1280", conv(32, 1280, 1280, 3, 1)},
		{"conv3x3 64x64 640 to 640 stride 2", conv(64, 640, 640, 3, 2)},
		{"attention 4096x4096 10 heads", attention(4096, 4096, 10)},
		{"attention 1024x1024 20 heads", attention(1024, 1024, 20)},
		{"attention 1024x77 20 heads", attention(1024, 77, 20)},
	} {
		b.Run(c.name, func(b *testing.B) {
			n := devicetest.NewNetwork(1)
			n.Tape.Output("output", c.record(n))
			d := open(b, cpu.Options{Threads: 2})
			if err := device.Computes(d, device.ComputeBF16); err != nil {
				b.Skip(err)
			}
			w, err := d.Load(b.Context(), n.Manifest, device.LoadPlan{}, n, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer w.Free()
			var runs [2]device.Run
			for c := range runs {
				if runs[c], err = d.NewRun(n.Tape, w, device.RunOptions{Compute: device.Compute(c)}); err != nil {
					b.Fatal(err)
				}
				defer runs[c].Free()
				for _, in := range n.Tape.Inputs() {
					if err := runs[c].Write(in.Name, n.Inputs[in.Name]); err != nil {
						b.Fatal(err)
					}
				}
			}
			inf := math.Inf(1)
			best := [2]cost{{inf, inf}, {inf, inf}}
			for b.Loop() {
				for c, r := range runs {
					best[c] = best[c].best(measure(func() {
						if err := r.Execute(b.Context()); err != nil {
							b.Fatal(err)
						}
					}))
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(best[0].processor*1e3, "f32-ms")
			b.ReportMetric(best[1].processor*1e3, "bf16-ms")
			b.ReportMetric(best[1].processor/best[0].processor, "bf16/f32")
		})
	}
}
