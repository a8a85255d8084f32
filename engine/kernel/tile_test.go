package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// tileRows returns taps*6 pointers into rows of k random floats, and the rows.
func tileRows(r *rand.Rand, taps, k int) ([]*float32, [][]float32) {
	pointers, rows := make([]*float32, taps*TileRows), make([][]float32, taps*TileRows)
	for i := range rows {
		rows[i] = normal(r, k, 1)
		pointers[i] = &rows[i][0]
	}
	return pointers, rows
}

func TestMultiply(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, k := range []int{1, 2, 3, 4, 5, 7, 8, 13, 40, 320} {
			for _, taps := range []int{1, 2, 9} {
				const most, panels, gap = 2*TileRows + 1, 3, 5
				step := taps*k*TileCols + gap
				pointers, rows := tileRows(r, 3*taps, k)
				w := normal(r, panels*step, 1)
				whole := make([]float32, most*panels*TileCols)
				Multiply(&Product{Out: whole, Stride: panels * TileCols, Apart: TileCols, Rows: pointers, TileStep: taps * TileRows, Taps: taps, K: k, Panels: w, Step: step, M: most, N: panels})
				for i, got := range whole {
					row, col := i/(panels*TileCols), i%(panels*TileCols)
					want, size := 0.0, 0.0
					for tap := range taps {
						for j, x := range rows[(row/TileRows*taps+tap)*TileRows+row%TileRows] {
							p := float64(x) * float64(w[col/TileCols*step+(tap*k+j)*TileCols+col%TileCols])
							want += p
							size += math.Abs(p)
						}
					}
					// Each of the n steps rounds a running sum by at most 6e-8 of it. The sum is below the magnitudes'
					// sum, and the roundings are a random walk: far less than n times one of them. Measured: 1.
					if d := math.Abs(float64(got) - want); d > 4*6e-8*size {
						t.Fatalf("k %d taps %d: element %d: got %v, want %v", k, taps, i, got, want)
					}
				}
				testParts(t, whole, Product{Rows: pointers, TileStep: taps * TileRows, Taps: taps, K: k, Panels: w, Step: step, M: most, N: panels})
			}
		}
	})
}

// testParts compares fewer rows and panels with the whole product, written to rows with gaps or added to them.
func testParts(t *testing.T, whole []float32, of Product) {
	t.Helper()
	const stride, apart = 3*TileCols + 7, TileCols + 2
	for m := range of.M + 1 {
		for n := range of.N + 1 {
			for _, add := range []bool{false, true} {
				out := guarded(t, (of.M-1)*stride+(of.N-1)*apart+TileCols)
				for i := range out {
					out[i] = -7
				}
				p := of
				p.Out, p.Stride, p.Apart, p.M, p.N, p.Add = out, stride, apart, m, n, add
				Multiply(&p)
				for i, got := range out {
					row, col := i/stride, i%stride
					want := float32(-7)
					if panel, c := col/apart, col%apart; row < m && panel < n && c < TileCols {
						want = whole[row*of.N*TileCols+panel*TileCols+c]
						if add {
							want += -7
						}
					}
					if got != want {
						t.Fatalf("k %d taps %d m %d n %d add %v: element %d: got %v, want %v", of.K, of.Taps, m, n, add, i, got, want)
					}
				}
			}
		}
	}
}

func TestMultiplyNothing(t *testing.T) {
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		for _, add := range []bool{false, true} {
			out := make([]float32, 3*TileCols)
			for i := range out {
				out[i] = 1
			}
			Multiply(&Product{Out: out, Stride: TileCols, Taps: 0, K: 5, M: 2, N: 1, Add: add})
			for i, v := range out {
				if want := float32(1); i < 2*TileCols && !add && v != 0 || (i >= 2*TileCols || add) && v != want {
					t.Fatalf("add %v: element %d: %v", add, i, v)
				}
			}
		}
	})
}

// TestMultiplyPropagates pins that a NaN or an infinity in one row stays in that row.
func TestMultiplyPropagates(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		pointers, rows := tileRows(r, 1, 9)
		rows[2][8], rows[4][0] = float32(math.NaN()), float32(math.Inf(1))
		panels := make([]float32, 2*9*TileCols)
		for i := range panels {
			panels[i] = 1
		}
		out := make([]float32, TileRows*2*TileCols)
		Multiply(&Product{Out: out, Stride: 2 * TileCols, Apart: TileCols, Rows: pointers, Taps: 1, K: 9, Panels: panels, Step: 9 * TileCols, M: TileRows, N: 2})
		for i, v := range out {
			row, v := i/(2*TileCols), float64(v)
			if math.IsNaN(v) != (row == 2) || math.IsInf(v, 1) != (row == 4) {
				t.Fatalf("row %d: %v", row, v)
			}
		}
	})
}
