package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

func TestPackKeys(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, d := range []int{1, 3, 4, 5, 8, 40} {
			for _, keys := range []int{1, 3, 8, 9, 15, 16, 17, 77} {
				stride, padded := d+3, (keys+TileCols-1)/TileCols*TileCols
				k, dst := normal(r, keys*stride, 1)[:(keys-1)*stride+d], guarded(t, padded*d)
				PackKeys(dst, k, stride, keys, d)
				for i := range padded {
					for e := range d {
						if got, want := dst[(i/TileCols*d+e)*TileCols+i%TileCols], k[min(i, keys-1)*stride+e]; got != want {
							t.Fatalf("d %d, %d keys: key %d dimension %d: got %v, want %v", d, keys, i, e, got, want)
						}
					}
				}
			}
		}
	})
}

// queries returns pointers to AttentionRows rows of d random floats.
func queries(r *rand.Rand, d int) (pointers [AttentionRows]*float32) {
	for i := range pointers {
		pointers[i] = &normal(r, d, 1)[0]
	}
	return pointers
}

func TestScores(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, d := range []int{1, 3, 4, 7, 40} {
			for _, keys := range []int{1, 16, 17, 77, MaxKeys} {
				pointers := queries(r, d)
				count := (keys + TileCols - 1) / TileCols
				panels := normal(r, count*TileCols*d, 1)
				dst := (*[ScoreElems]float32)(guarded(t, ScoreElems))
				Scores(dst, &pointers, panels, d, keys)
				for i := range AttentionRows * count * TileCols {
					row, key := i/(count*TileCols), i%(count*TileCols)
					want, size := 0.0, 0.0
					for e, x := range unsafe.Slice(pointers[row], d) {
						p := float64(x) * float64(panels[(key/TileCols*d+e)*TileCols+key%TileCols])
						want += p
						size += math.Abs(p)
					}
					if got := dst[row*ScoreStride+key]; math.Abs(float64(got)-want) > 4*6e-8*size { // as in TestTile
						t.Fatalf("d %d, %d keys: query %d, key %d: got %v, want %v", d, keys, row, key, got, want)
					}
				}
			}
		}
	})
}

func TestWeigh(t *testing.T) {
	const scale = float32(0.75)
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, n := range []int{1, 5, 8, 13, 32, 33, 77, 512} {
			var state Softmax
			state.Reset()
			var all [AttentionRows][]float64 // scores of all blocks
			for block := range 3 {
				scores := (*[ScoreElems]float32)(guarded(t, ScoreElems))
				var in [AttentionRows][]float32
				before := state.Top
				for row := range in {
					in[row] = normal(r, n, 4)
					copy(scores[row*ScoreStride:], in[row])
					for _, s := range in[row] {
						all[row] = append(all[row], float64(s))
					}
				}
				Weigh(scores, n, scale, &state)
				for row, s := range in {
					top, want := float64(state.Top[row]), math.Inf(-1)
					for _, s := range all[row] {
						want = max(want, s)
					}
					if top != want {
						t.Fatalf("length %d, block %d: top %v, want %v", n, block, top, want)
					}
					for i := range s {
						near(t, "weight", i, scores[row*ScoreStride+i], math.Exp2(float64((s[i]-state.Top[row])*scale)), expTolerance, 0)
					}
					near(t, "shrink", row, state.Shrink[row], math.Exp2(float64((before[row]-state.Top[row])*scale)), expTolerance, 0)
					sum := 0.0
					for _, s := range all[row] {
						sum += math.Exp2((s - top) * float64(scale))
					}
					// Terms are positive: each lane rounds n/8 times a block, a random walk, and a weight is off by 2 units at most.
					near(t, "sum", row, state.Sum(row), sum, 5e-7, 0)
				}
			}
		}
	})
}

// expTolerance is 2 units in the last place of a result just above a power of two.
const expTolerance = 2.4e-7

// TestPower2Sweep goes over the whole range in steps of half a per mille.
func TestPower2Sweep(t *testing.T) {
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		worst := 0.0
		for x := -140.0; x < 0; {
			var scores [ScoreElems]float32
			var in [MaxKeys]float32
			for i := range in {
				in[i] = float32(min(0, x))
				x += 0.0005
			}
			in[0] = 0
			copy(scores[:], in[:])
			var state Softmax
			state.Reset()
			Weigh(&scores, MaxKeys, 1, &state)
			for i, x := range in {
				want := math.Exp2(float64(x))
				switch got := scores[i]; {
				case x <= -127 && got != 0:
					t.Fatalf("2^%v = %v, want 0", x, got)
				case x < -126 && (got < 0 || got > 0x1p-126):
					t.Fatalf("2^%v = %v, want a denormal", x, got)
				case x >= -126:
					near(t, "power", i, got, want, expTolerance, 0)
					worst = max(worst, math.Abs(float64(got)-want)/math.Ldexp(1, math.Ilogb(want)-23))
				}
			}
		}
		t.Logf("2^x: worst error %.2f units in the last place", worst)
		if worst > 2 {
			t.Errorf("2^x: off by %.2f units", worst)
		}
	})
}

func TestWeighExtremes(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		var scores [ScoreElems]float32
		rows := [AttentionRows][]float32{
			{-inf, 3, -inf, -1e30, 1, -inf, -inf, -inf, -inf},
			{1e30, 1e30, -1e30, 0, 0, 0, 0, 0, 1e30},
			{0, 0, 0, 0, 0, 0, 0, nan, 0},
			{nan, 0, 0, 0, 0, 0, 0, 0, 0},
			{0, 0, 0, 0, 0, 0, 0, 0, nan},
			{0, 0, 0, inf, 0, 0, 0, 0, 0},
		}
		for r, row := range rows {
			copy(scores[r*ScoreStride:], row)
		}
		var state Softmax
		state.Reset()
		Weigh(&scores, 9, 1, &state)
		same(t, "masked", scores[:9], []float32{0, 1, 0, 0, 0.25, 0, 0, 0, 0})
		same(t, "large", scores[ScoreStride:][:9], []float32{1, 1, 0, 0, 0, 0, 0, 0, 1})
		if a, b := state.Sum(0), state.Sum(1); a != 1.25 || b != 3 {
			t.Errorf("sums %v and %v, want 1.25 and 3", a, b)
		}
		for r := 2; r < 6; r++ {
			if s := state.Sum(r); s == s {
				t.Errorf("row %d: NaN or infinity sums to %v", r, s)
			}
			for i, v := range rows[r] {
				if w := scores[r*ScoreStride+i]; v != v && w == w {
					t.Errorf("row %d: NaN weighs %v", r, w)
				}
			}
		}
		// A block that is masked wholly changes nothing.
		before := state
		for i := range 16 {
			scores[i] = -inf
		}
		Weigh(&scores, 16, 1, &state)
		if state.Sum(0) != before.Sum(0) || state.Top[0] != before.Top[0] || state.Shrink[0] != 1 || scores[3] != 0 {
			t.Errorf("a masked block: sum %v, top %v, shrink %v", state.Sum(0), state.Top[0], state.Shrink[0])
		}
	})
}

func TestMix(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, d := range []int{1, 5, 8, 13, 16, 24, 40, 56, 61, 64, 72, 80, 104, 112} {
			for _, keys := range []int{1, 2, 5, 8, 77, MaxKeys} {
				stride := d + 2
				var weights [ScoreElems]float32
				copy(weights[:], normal(r, ScoreElems, 1))
				values := normal(r, keys*stride, 1)[:(keys-1)*stride+d]
				if keys%2 == 0 { // rows that begin in the middle of a cache line
					stride = (d+TileCols-1)/TileCols*TileCols + TileCols
					values = normal(r, keys*stride+TileCols, 1)
					for uintptr(unsafe.Pointer(&values[0]))%64 != 32 {
						values = values[1:]
					}
					values = values[:(keys-1)*stride+d]
				}
				for _, shrink := range []*[AttentionRows]float32{nil, {0, 1, 0.5, 2, 3, -1}} {
					sums := guarded(t, AttentionRows*MixStride(d))
					for i := range sums {
						sums[i] = float32(math.NaN())
						if shrink != nil {
							sums[i] = float32(i%5) - 2
						}
					}
					sums0 := slices.Clone(sums)
					Mix(sums, &weights, values, stride, keys, d, shrink)
					for row := range AttentionRows {
						for c := range d {
							want, size := 0.0, 0.0
							if shrink != nil {
								want = float64(sums0[row*MixStride(d)+c]) * float64(shrink[row])
								size = math.Abs(want)
							}
							for i := range keys {
								p := float64(weights[row*ScoreStride+i]) * float64(values[i*stride+c])
								want += p
								size += math.Abs(p)
							}
							// As in TestTile, but the worst of more sums.
							if got := sums[row*MixStride(d)+c]; !(math.Abs(float64(got)-want) <= 6*6e-8*size) {
								t.Fatalf("d %d, %d keys, shrink %v: row %d column %d: got %v, want %v", d, keys, shrink, row, c, got, want)
							}
						}
					}
				}
			}
		}
	})
}

func TestMeans(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, d := range []int{1, 5, 8, 13, 16, 40} {
			for rows := 1; rows <= AttentionRows; rows++ {
				stride := d + 3
				sums, dst := normal(r, AttentionRows*MixStride(d), 1), guarded(t, (rows-1)*stride+d)
				var state Softmax
				for row := range state.Mass {
					copy(state.Mass[row][:], []float32{1, 2, 3, 4, 5, 6, 7, float32(row)})
				}
				clear(dst)
				Means(dst, sums, stride, d, rows, &state)
				for i, got := range dst {
					row, c := i/stride, i%stride
					if c >= d {
						if got != 0 {
							t.Fatalf("d %d: wrote between rows", d)
						}
						continue
					}
					near(t, "mean", i, got, float64(sums[row*MixStride(d)+c])/float64(28+row), 2e-7, 0)
				}
			}
		}
	})
}
