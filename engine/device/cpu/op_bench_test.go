package cpu_test

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// The benchmarks here run one op at the shapes of Stable Diffusion 1.5, on one thread and on two, and compare its
// best time with the best time of a limit, taken in turn with it: the clock of a shared machine changes. The same by
// processor time, divided by the threads, tells what the op would take if nobody else used the cores.

// cost is what a call took, in seconds.
type cost struct{ wall, processor float64 }

func measure(f func()) cost {
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &before) // fails for an unknown constant only
	start := time.Now()
	f()
	wall := time.Since(start).Seconds()
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	return cost{wall, float64(used) / 1e9}
}

func (c cost) best(d cost) cost { return cost{min(c.wall, d.wall), min(c.processor, d.processor)} }

// benchmarkOp records one op on a network and runs it in turn with limit on so many threads; conv is the device's way
// to compute convolutions. report gets the least cost
// of each and the name of a time.
func benchmarkOp(b *testing.B, name string, conv cpu.Algorithm, record func(n *devicetest.Network) device.Array, limit func(threads int), report func(b *testing.B, threads int, op, limit float64, suffix string)) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("%s/threads=%d", name, threads), func(b *testing.B) {
			n := devicetest.NewNetwork(1)
			n.Tape.Output("output", record(n))
			if err := n.Tape.Err(); err != nil {
				b.Fatal(err)
			}
			d := open(b, cpu.Options{Threads: threads, Conv: conv})
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
			for _, in := range n.Tape.Inputs() {
				if err := r.Write(in.Name, n.Inputs[in.Name]); err != nil {
					b.Fatal(err)
				}
			}
			if err := r.Execute(b.Context()); err != nil { // touches the memory
				b.Fatal(err)
			}
			limit(threads)
			inf := math.Inf(1)
			best, bestLimit := cost{inf, inf}, cost{inf, inf}
			for b.Loop() {
				best = best.best(measure(func() {
					if err := r.Execute(b.Context()); err != nil {
						b.Fatal(err)
					}
				}))
				bestLimit = bestLimit.best(measure(func() { limit(threads) }))
			}
			b.ReportMetric(0, "ns/op") // it would hold the limit's time too
			b.ReportMetric(best.wall*1e6, "best-us")
			b.ReportMetric(float64(r.Bytes())/1e6, "scratch-MB")
			report(b, threads, best.wall, bestLimit.wall, "")
			report(b, threads, best.processor/float64(threads), bestLimit.processor/float64(threads), "-processor")
		})
	}
}

// onThreads runs f for chunks of n elements, a part of them on each thread.
func onThreads(threads, n, chunk int, f func(first, last int)) {
	var all sync.WaitGroup
	for i := range threads {
		all.Go(func() {
			end := n * (i + 1) / threads
			for at := n * i / threads; at < end; at += chunk {
				f(at, min(at+chunk, end))
			}
		})
	}
	all.Wait()
}

// traffic is a limit that reads reads elements and copies copies elements, in tasks as small as an op's. An element that
// is read only is copied to where L1 keeps it.
func traffic(reads, copies int) func(threads int) {
	const chunk = 4 << 10
	from, to := make([]float32, max(reads, copies)), make([]float32, copies)
	for i := range from {
		from[i] = 1 // else all of it would be one page of zeros
	}
	return func(threads int) {
		onThreads(threads, reads, chunk, func(first, last int) {
			var sink [chunk]float32
			copy(sink[:], from[first:last])
		})
		onThreads(threads, copies, chunk, func(first, last int) { copy(to[first:last], from[first:last]) })
	}
}

// memoryReport tells the bytes an op must read and write, a second, and the share of what the limit reached with them.
func memoryReport(elems int) func(b *testing.B, threads int, op, limit float64, suffix string) {
	return func(b *testing.B, _ int, op, limit float64, suffix string) {
		b.ReportMetric(4*float64(elems)/op/1e9, "GB/s"+suffix)
		b.ReportMetric(100*limit/op, "%bandwidth"+suffix)
	}
}

// BenchmarkGroupNorm: x is read, then read and written, as DRAM and caches of this machine do it without arithmetic.
func BenchmarkGroupNorm(b *testing.B) {
	for _, act := range []device.Activation{device.None, device.SiLU} {
		for _, shape := range [][]int{{2, 64, 64, 320}, {2, 32, 32, 640}, {2, 16, 16, 1280}, {1, 512, 512, 128}, {1, 256, 256, 256}, {2, 16, 16, 64}, {1, 128, 128, 32}} {
			elems := shape[0] * shape[1] * shape[2] * shape[3]
			benchmarkOp(b, fmt.Sprintf("act%d/%dx%dx%dx%d", act, shape[0], shape[1], shape[2], shape[3]), "", func(n *devicetest.Network) device.Array {
				vector := func() device.Weight { return n.Param(device.Vector, tensor.F32, 1, shape[3]) }
				return n.Tape.GroupNorm(device.GroupNorm{X: n.Input(0, shape...), Gamma: vector(), Beta: vector(), Groups: 32, Eps: 1e-5, Act: act})
			}, traffic(elems, elems), memoryReport(3*elems))
		}
	}
}

func BenchmarkLayerNorm(b *testing.B) {
	for _, shape := range [][]int{{2, 4096, 320}, {2, 1024, 640}, {2, 256, 1280}, {2, 64, 64}} {
		elems := shape[0] * shape[1] * shape[2]
		benchmarkOp(b, fmt.Sprintf("%dx%dx%d", shape[0], shape[1], shape[2]), "", func(n *devicetest.Network) device.Array {
			vector := func() device.Weight { return n.Param(device.Vector, tensor.F32, 1, shape[2]) }
			return n.Tape.LayerNorm(device.LayerNorm{X: n.Input(0, shape...), Gamma: vector(), Beta: vector(), Eps: 1e-5})
		}, traffic(0, elems), memoryReport(2*elems))
	}
}

// BenchmarkGEGLU compares with the memory and with the same arithmetic on what L1 holds: GELU bounds it.
func BenchmarkGEGLU(b *testing.B) {
	const rows, width = 2 * 4096, 1280
	record := func(n *devicetest.Network) device.Array {
		return n.Tape.GEGLU(device.GEGLU{X: n.Input(0, rows, 2*width)})
	}
	benchmarkOp(b, "memory", "", record, traffic(rows*width, rows*width), memoryReport(3*rows*width))
	x := make([]float32, width)
	benchmarkOp(b, "arithmetic", "", record, func(threads int) {
		onThreads(threads, rows*width, width, func(first, last int) {
			var out [width]float32
			kernel.GEGLU(out[:last-first], x, x)
		})
	}, func(b *testing.B, _ int, op, limit float64, suffix string) {
		b.ReportMetric(100*limit/op, "%arithmetic"+suffix)
	})
}

func BenchmarkConcat(b *testing.B) {
	const pixels, width = 2 * 64 * 64, 320
	benchmarkOp(b, "2x64x64x320+320", "", func(n *devicetest.Network) device.Array {
		return n.Tape.Concat(device.Concat{A: n.Input(0, pixels, width), B: n.Input(0, pixels, width)})
	}, traffic(0, 2*pixels*width), memoryReport(4*pixels*width))
}

const peakRounds = 100_000

// BenchmarkAttention reports 4 Tq Tk d operations a head against the FMA peak of a core times the threads. A causal
// one needs about half of what is counted.
func BenchmarkAttention(b *testing.B) {
	for _, c := range []struct {
		name                           string
		batch, queries, keys, heads, d int
		causal                         bool
	}{
		{"self4096d40", 2, 4096, 4096, 8, 40, false},
		{"self1024d80", 2, 1024, 1024, 8, 80, false},
		{"self256d160", 2, 256, 256, 8, 160, false},
		{"self64d160", 2, 64, 64, 8, 160, false},
		{"cross4096d40", 2, 4096, 77, 8, 40, false},
		{"cross1024d80", 2, 1024, 77, 8, 80, false},
		{"vae4096d512", 1, 4096, 4096, 1, 512, false},
		{"clip77d64", 1, 77, 77, 12, 64, true},
		{"starter256d16", 2, 256, 256, 4, 16, false},
	} {
		flops := 4 * float64(c.batch*c.queries*c.keys*c.heads*c.d)
		benchmarkOp(b, c.name, "", func(n *devicetest.Network) device.Array {
			input := func(tokens int) device.Array { return n.Input(0, c.batch, tokens, c.heads*c.d) }
			return n.Tape.Attention(device.Attention{Q: input(c.queries), K: input(c.keys), V: input(c.keys), Heads: c.heads, Causal: c.causal})
		}, fmaLimit, peakReport(flops))
	}
}

func fmaLimit(threads int) {
	onThreads(threads, threads, 1, func(_, _ int) { kernel.FMAPeak(peakRounds) })
}

// peakReport tells the share of the FMA peak of a core, times the threads.
func peakReport(flops float64) func(b *testing.B, threads int, op, limit float64, suffix string) {
	return func(b *testing.B, threads int, op, limit float64, suffix string) {
		peak := peakRounds * kernel.PeakFlops * float64(threads) / limit
		b.ReportMetric(100*flops/op/peak, "%peak"+suffix)
	}
}

// BenchmarkGemm multiplies rows, those of both images of a guided step or of both prompts, by weights [outputs, inputs].
func BenchmarkGemm(b *testing.B) {
	for _, c := range []struct{ rows, in, out int }{
		{8192, 320, 320},
		{8192, 320, 2560},
		{8192, 1280, 320},
		{2048, 640, 640},
		{2048, 2560, 640},
		{512, 1280, 10240},
		{512, 5120, 1280},
		{128, 1280, 1280},
		{154, 768, 3072},
		{154, 3072, 768},
		{2, 1280, 320},
	} {
		benchmarkOp(b, fmt.Sprintf("%dx%dx%d", c.rows, c.in, c.out), "", func(n *devicetest.Network) device.Array {
			return n.Tape.Gemm(device.Gemm{X: n.Input(0, c.rows, c.in), W: n.Param(device.Matrix, tensor.F16, 1, c.out, c.in)})
		}, fmaLimit, peakReport(2*float64(c.rows*c.in*c.out)))
	}
}
