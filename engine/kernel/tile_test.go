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

func TestTile(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, k := range []int{1, 2, 3, 4, 5, 7, 8, 13, 40, 320} {
			for _, taps := range []int{1, 2, 9} {
				pointers, rows := tileRows(r, taps, k)
				panel := normal(r, taps*k*TileCols, 1)
				var whole [TileRows * TileCols]float32
				Tile(&whole, pointers, taps, k, panel, TileRows)
				for m := 1; m <= TileRows; m++ {
					var out [TileRows * TileCols]float32
					for i := range out {
						out[i] = -7
					}
					Tile(&out, pointers, taps, k, panel, m)
					for i, got := range out {
						if i >= m*TileCols {
							if got != -7 {
								t.Fatalf("m %d: wrote row %d", m, i/TileCols)
							}
							continue
						}
						want, size := 0.0, 0.0
						for tap := range taps {
							for j, x := range rows[tap*TileRows+i/TileCols] {
								p := float64(x) * float64(panel[(tap*k+j)*TileCols+i%TileCols])
								want += p
								size += math.Abs(p)
							}
						}
						// Each of the n steps rounds a running sum by at most 6e-8 of it. The sum is below the magnitudes'
						// sum, and the roundings are a random walk: far less than n times one of them. Measured: 1.
						if d := math.Abs(float64(got) - want); d > 4*6e-8*size {
							t.Fatalf("k %d taps %d m %d: element %d: got %v, want %v", k, taps, m, i, got, want)
						}
						if got != whole[i] {
							t.Fatalf("k %d taps %d: element %d is %v with m %d and %v with m 6", k, taps, i, got, m, whole[i])
						}
					}
				}
			}
		}
	})
}

func TestTileOfNothing(t *testing.T) {
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		var out [TileRows * TileCols]float32
		for i := range out {
			out[i] = 1
		}
		Tile(&out, nil, 0, 5, nil, 2)
		for i, v := range out {
			if want := float32(i / (2 * TileCols)); (v != 0) != (want > 0) {
				t.Fatalf("element %d: %v", i, v)
			}
		}
	})
}

// TestTilePropagates pins that a NaN or an infinity in one row stays in that row.
func TestTilePropagates(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		pointers, rows := tileRows(r, 1, 9)
		rows[2][8], rows[4][0] = float32(math.NaN()), float32(math.Inf(1))
		panel := make([]float32, 9*TileCols)
		for i := range panel {
			panel[i] = 1
		}
		var out [TileRows * TileCols]float32
		Tile(&out, pointers, 1, 9, panel, TileRows)
		for i, v := range out {
			row, v := i/TileCols, float64(v)
			if math.IsNaN(v) != (row == 2) || math.IsInf(v, 1) != (row == 4) {
				t.Fatalf("row %d: %v", row, v)
			}
		}
	})
}
