package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func seconds(f func()) float64 {
	start := time.Now()
	f()
	return time.Since(start).Seconds()
}

func median(s []float64) float64 {
	slices.Sort(s)
	return s[len(s)/2]
}

func eachVariantBench(b *testing.B, body func(b *testing.B)) {
	for _, name := range Variants() {
		b.Run(name, func(b *testing.B) {
			use(b, name)
			body(b)
		})
	}
}

// BenchmarkTile reports the median round, in GFLOP/s and as a fraction of the FMA peak. Each round is followed by one of
// FMAPeak and compared with that: the clock of a shared machine changes by a quarter within seconds. 16 groups of rows
// meet the panels of a tile, as in a GEMM. A panel has 64 bytes for a step: with 320 steps it lies in L1, with 9 taps of 320
// (184 KiB) in L2, with 9 taps of 1280 (737 KiB) in L3 where L2 is 512 KiB; a caller cuts such a k.
func BenchmarkTile(b *testing.B) {
	eachVariantBench(b, func(b *testing.B) {
		for _, m := range []int{6, 4, 2, 1} {
			for _, k := range []int{320, 1280} {
				for _, taps := range []int{1, 9} {
					if m < 6 && (k != 320 || taps != 9) {
						continue
					}
					b.Run(fmt.Sprintf("m%d/k%d/taps%d", m, k, taps), func(b *testing.B) { benchmarkTile(b, m, k, taps) })
				}
			}
		}
	})
}

func benchmarkTile(b *testing.B, m, k, taps int) {
	r := rand.New(rand.NewPCG(1, 2))
	const groups = 16
	var rows [groups][]*float32
	for i := range rows {
		rows[i], _ = tileRows(r, taps, k)
	}
	n := TilePanels()
	panels, out := normal(r, n*taps*k*TileCols, 1), make([]float32, TileRows*2*TileCols)
	const peakRounds = 10000
	var rate, fraction []float64
	for b.Loop() {
		t := seconds(func() {
			for i := range rows {
				Multiply(&Product{Out: out, Stride: 2 * TileCols, Apart: TileCols, Rows: rows[i], Taps: taps, K: k, Panels: panels, Step: taps * k * TileCols, M: m, N: n})
			}
		})
		r := float64(groups*taps*k*m*n*TileCols*2) / t
		peak := peakRounds * PeakFlops / seconds(func() { FMAPeak(peakRounds) })
		rate, fraction = append(rate, r/1e9), append(fraction, 100*r/peak)
	}
	b.ReportMetric(0, "ns/op") // it would hold the peak's time too
	b.ReportMetric(median(rate), "GFLOP/s")
	b.ReportMetric(median(fraction), "%peak")
}

// BenchmarkPointwise runs every other kernel on 4096 elements, which an L1 or L2 holds, and reports the median round:
// elements per nanosecond, and gigabytes a second of one operand.
func BenchmarkPointwise(b *testing.B) {
	const n, channels = 4096, 256
	r := rand.New(rand.NewPCG(1, 2))
	x, y, z, dst, half := normal(r, n, 1), normal(r, n, 1), normal(r, n, 1), make([]float32, n), make([]uint16, n)
	small, bytes := make([]int8, n), make([]byte, 4*n)
	sum, sq := make([]float64, channels), make([]float64, channels)
	eachVariantBench(b, func(b *testing.B) {
		for _, c := range []struct {
			name string
			f    func()
		}{
			{"FinishNone", func() { Finish(dst, x, y, nil, z, None) }},
			{"FinishGELU", func() { Finish(dst, x, y, nil, z, GELU) }},
			{"SiLU", func() { Activate(dst, x, SiLU) }},
			{"GELU", func() { Activate(dst, x, GELU) }},
			{"GEGLU", func() { GEGLU(dst, x, y) }},
			{"ScaleShiftSiLU", func() { ScaleShift(dst, x, y[:channels], z, channels, n/channels, SiLU) }},
			{"LayerNorm", func() { LayerNorm(dst, x, y, z, 1e-5) }},
			{"ColumnMoments", func() { ColumnMoments(sum, sq, x, y, channels, n/channels) }},
			{"WidenF16", func() { WidenF16(dst, half) }},
			{"WidenBF16", func() { WidenBF16(dst, half) }},
			{"WidenI8", func() { WidenI8(dst, small, (*[TileCols]float32)(y)) }},
			{"AbsMax", func() { AbsMax(x) }},
			{"Finite", func() { Finite(bytes, ExponentF32) }},
			{"QuantizeI8", func() { QuantizeI8(small, x, 1) }},
			{"Scale", func() { Scale(dst, 1) }},
			{"Add", func() { Add(dst, x, y) }},
		} {
			b.Run(c.name, func(b *testing.B) {
				var rate []float64
				for b.Loop() {
					rate = append(rate, n/seconds(c.f)/1e9)
				}
				b.ReportMetric(median(rate), "elem/ns")
				b.ReportMetric(4*median(rate), "GB/s")
			})
		}
	})
}

// BenchmarkAttentionTile runs the parts of an attention on one tile of queries and a block of keys.
func BenchmarkAttentionTile(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	eachVariantBench(b, func(b *testing.B) {
		for _, c := range []struct{ keys, d int }{{512, 40}, {512, 80}, {256, 160}, {80, 512}, {77, 40}} {
			pointers := queries(r, c.d)
			keys, values := normal(r, c.keys*c.d, 1), normal(r, c.keys*c.d, 1)
			panels := make([]float32, (c.keys+TileCols-1)/TileCols*TileCols*c.d)
			sums := make([]float32, AttentionRows*MixStride(c.d))
			var scores [ScoreElems]float32
			var state Softmax
			state.Reset()
			for _, part := range []struct {
				name  string
				flops int
				f     func()
			}{
				{"PackKeys", 0, func() { PackKeys(panels, keys, c.d, c.keys, c.d) }},
				{"Scores", 2 * AttentionRows * c.keys * c.d, func() { Scores(&scores, &pointers, panels, c.d, c.keys) }},
				{"Weigh", 0, func() { Weigh(&scores, c.keys, 1, &state) }},
				{"Mix", 2 * AttentionRows * c.keys * c.d, func() { Mix(sums, &scores, values, c.d, c.keys, c.d, &state.Shrink) }},
			} {
				b.Run(fmt.Sprintf("keys%d/d%d/%s", c.keys, c.d, part.name), func(b *testing.B) {
					const peakRounds = 1000
					best, bestPeak := math.Inf(1), math.Inf(1)
					for b.Loop() {
						best = min(best, seconds(part.f))
						bestPeak = min(bestPeak, seconds(func() { FMAPeak(peakRounds) }))
					}
					b.ReportMetric(0, "ns/op")
					b.ReportMetric(best*1e9, "best-ns")
					// A round of the peak is 12 vector multiply-adds.
					b.ReportMetric(best/bestPeak*peakRounds*12, "FMAs")
					if part.flops > 0 {
						b.ReportMetric(100*float64(part.flops)/best/(peakRounds*PeakFlops/bestPeak), "%peak")
					}
				})
			}
		}
	})
}

// BenchmarkWinograd runs the transforms on tiles that L1 holds, and reports the cycles' worth of the FMA peak for each
// value of the transformed side and 16 channels.
func BenchmarkWinograd(b *testing.B) {
	const n = 64
	r := rand.New(rand.NewPCG(1, 2))
	eachVariantBench(b, func(b *testing.B) {
		for name, w := range map[string]Winograd{"F2": F2, "F4": F4, "F4Up": F4Up} {
			src, _ := pointers(r, w.Reads()*w.Reads(), n)
			values, products := make([]float32, w.Values()*n), normal(r, w.Products()*n, 1)
			dst, bias := make([]float32, w.Tile()*w.Tile()*n), new([TileCols]float32)
			for _, part := range []struct {
				name string
				f    func()
			}{
				{"Input", func() { WinogradInput(w, values, n, src, n) }},
				{"Output", func() {
					for c := 0; c < n; c += TileCols {
						WinogradOutput(w, dst[c:], w.Tile()*n, n, products[c:], n, bias, nil, dst[c:])
					}
				}},
			} {
				b.Run(name+"/"+part.name, func(b *testing.B) {
					best := math.Inf(1)
					for b.Loop() {
						best = min(best, seconds(func() {
							for range 16 {
								part.f()
							}
						}))
					}
					b.ReportMetric(0, "ns/op")
					b.ReportMetric(best*1e9/16, "best-ns")
				})
			}
		}
	})
}
