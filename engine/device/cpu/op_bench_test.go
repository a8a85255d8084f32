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

// The benchmarks here run one op at the shapes of Stable Diffusion 1.5, on one thread and on two, and compare its
// best time with the best time of a limit, taken in turn with it: the clock of a shared machine changes.

// benchmarkOp records one op on n and runs it against limit, which is one round of the limit on so many threads.
// report gets the best seconds of each.
func benchmarkOp(b *testing.B, name string, record func(n *devicetest.Network) device.Array, limit func(threads int), report func(b *testing.B, threads int, op, limit float64)) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("%s/threads=%d", name, threads), func(b *testing.B) {
			n := devicetest.NewNetwork(1)
			n.Tape.Output("output", record(n))
			if err := n.Tape.Err(); err != nil {
				b.Fatal(err)
			}
			d := open(b, cpu.Options{Threads: threads})
			w, err := d.Load(b.Context(), n.Manifest, n, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer w.Free()
			r, err := d.NewRun(n.Tape, w)
			if err != nil {
				b.Fatal(err)
			}
			defer r.Free()
			for _, in := range n.Tape.Inputs() {
				if err := r.Write(in.Name, n.Inputs[in.Name]); err != nil {
					b.Fatal(err)
				}
			}
			best, bestLimit := math.Inf(1), math.Inf(1)
			for b.Loop() {
				best = min(best, seconds(func() {
					if err := r.Execute(b.Context()); err != nil {
						b.Fatal(err)
					}
				}))
				bestLimit = min(bestLimit, seconds(func() { limit(threads) }))
			}
			b.ReportMetric(0, "ns/op") // it would hold the limit's time too
			b.ReportMetric(best*1e6, "best-us")
			report(b, threads, best, bestLimit)
		})
	}
}

func seconds(f func()) float64 {
	start := time.Now()
	f()
	return time.Since(start).Seconds()
}

// onThreads runs f for every part of n elements, a part for each thread, in whole chunks of 64 KiB of float32.
func onThreads(threads, n int, f func(first, last int)) {
	const chunk = 16 << 10
	var all sync.WaitGroup
	for i := range threads {
		all.Go(func() {
			for at := n * i / threads; at < n*(i+1)/threads; at += chunk {
				f(at, min(at+chunk, n*(i+1)/threads))
			}
		})
	}
	all.Wait()
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
		benchmarkOp(b, c.name, func(n *devicetest.Network) device.Array {
			input := func(tokens int) device.Array { return n.Input(0, c.batch, tokens, c.heads*c.d) }
			return n.Tape.Attention(device.Attention{Q: input(c.queries), K: input(c.keys), V: input(c.keys), Heads: c.heads, Causal: c.causal})
		}, func(int) { kernel.FMAPeak(peakRounds) }, func(b *testing.B, threads int, op, limit float64) {
			peak := peakRounds * kernel.PeakFlops / limit * float64(threads)
			b.ReportMetric(flops/op/1e9, "GFLOP/s")
			b.ReportMetric(100*flops/op/peak, "%peak")
		})
	}
}

var _ = tensor.F32
