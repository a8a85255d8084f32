package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// toBF16 is the definition: the nearest of the multiples of the last of 8 bits, of two the one that is even.
func toBF16(v float32) float32 {
	f := float64(v)
	switch _, exponent := math.Frexp(f); {
	case math.IsNaN(f):
		return float32(math.NaN())
	case math.IsInf(f, 0):
		return v
	case math.Abs(f) < 0x1p-126:
		return float32(math.Copysign(0, f))
	default:
		unit := math.Ldexp(1, exponent-8)
		return float32(math.RoundToEven(f/unit) * unit)
	}
}

// pairs gives the values of pairs, of a row or of the column of a panel.
func pairs(v []float32, step int) []float32 {
	var out []float32
	for i := 0; i < len(v); i += step {
		bits := math.Float32bits(v[i])
		out = append(out, math.Float32frombits(bits<<16), math.Float32frombits(bits&^0xffff))
	}
	return out
}

func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, w := range want {
		if math.Float32bits(got[i]) != math.Float32bits(w) && (w == w || got[i] == got[i]) {
			t.Fatalf("%s: value %d of %d: %x, want %x", what, i, len(want), math.Float32bits(got[i]), math.Float32bits(w))
		}
	}
}

// roundings are values between two neighbours of bfloat16, in the middle and beside it, and those that are none.
func roundings(r *rand.Rand, n int) []float32 {
	v := normal(r, n, 1)
	special := []uint32{
		0x3f808000, 0x3f818000, 0x3f808001, 0x3f817fff, 0xbf818000, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xff80ffff,
		0, 0x80000000, 1, 0x807fffff, 0x00800000, 0x007f8000, 0x7f7f8000,
	}
	for i := range v {
		if r.IntN(2) == 0 {
			v[i] = math.Float32frombits(special[r.IntN(len(special))])
		}
	}
	return v
}

func TestPairRow(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, n := range lengths() {
			src := roundings(r, n)
			want := make([]float32, 2*Pairs(n))
			for i, v := range src {
				want[i] = toBF16(v)
			}
			dst := guarded(t, Pairs(n))
			PairRow(dst, src)
			sameBits(t, "row", pairs(dst, 1), want)
		}
	})
}

func TestPairPanel(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, rows := range []int{0, 1, 2, 3, 8, 33} {
			src := roundings(r, rows*TileCols)
			stored, want := make([]uint16, len(src)), make([]float32, len(src))
			for i, v := range src {
				want[i] = toBF16(v)
				stored[i] = uint16(math.Float32bits(want[i]) >> 16)
			}
			rounded, joined := guarded(t, Pairs(rows)*TileCols), guarded(t, Pairs(rows)*TileCols)
			apart := make([]float32, rows*(TileCols+3))
			for i := range rows {
				copy(apart[i*(TileCols+3):], src[i*TileCols:][:TileCols])
			}
			PairPanel(rounded, apart, TileCols+3, rows)
			PairPanelBF16(joined, stored, rows)
			for c := range TileCols {
				column := make([]float32, 2*Pairs(rows))
				for i := range rows {
					column[i] = want[i*TileCols+c]
				}
				if rows > 0 {
					sameBits(t, "rounded", pairs(rounded[c:], TileCols), column)
					sameBits(t, "joined", pairs(joined[c:], TileCols), column)
				}
			}
		}
	})
}

func TestMultiplyPairs(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, k := range []int{1, 2, 3, 4, 5, 7, 8, 13, 40, 320} {
			for _, taps := range []int{1, 2, 9} {
				const most, panels, gap = 2*TileRows + 1, 3, 5
				step := taps*k*TileCols + gap
				pointers, rows := tileRows(r, 3*taps, k)
				for _, row := range rows {
					PairRow(row, normal(r, 2*k, 1))
				}
				w := make([]float32, panels*step)
				PairRow(w, normal(r, 2*len(w), 1))
				whole := make([]float32, most*panels*TileCols)
				p := Product{Rows: pointers, TileStep: taps * TileRows, Taps: taps, K: k, Panels: w, Step: step, M: most, N: panels, Pairs: true}
				all := p
				all.Out, all.Stride, all.Apart = whole, panels*TileCols, TileCols
				Multiply(&all)
				for i, got := range whole {
					row, col := i/(panels*TileCols), i%(panels*TileCols)
					want, size := 0.0, 0.0
					for tap := range taps {
						column := w[col/TileCols*step+tap*k*TileCols+col%TileCols:]
						weights := pairs(column[:(k-1)*TileCols+1], TileCols)
						for j, x := range pairs(rows[(row/TileRows*taps+tap)*TileRows+row%TileRows], 1) {
							p := float64(x) * float64(weights[j])
							want += p
							size += math.Abs(p)
						}
					}
					// As in TestMultiply: products of bfloat16 are exact in float32, and so only sums are rounded.
					if d := math.Abs(float64(got) - want); d > 4*6e-8*size {
						t.Fatalf("k %d taps %d: element %d: got %v, want %v", k, taps, i, got, want)
					}
				}
				testParts(t, whole, p)
			}
		}
	})
}

// TestMultiplyPairsPropagates pins that a NaN or an infinity in one row stays in that row.
func TestMultiplyPairsPropagates(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		const k = 5
		pointers, rows := tileRows(r, 1, k)
		for i, row := range rows {
			values := normal(r, 2*k, 1)
			switch i {
			case 2:
				values[9] = float32(math.NaN())
			case 4:
				values[0] = float32(math.Inf(1))
			}
			PairRow(row, values)
		}
		ones, panels := make([]float32, 2*k*TileCols), make([]float32, 2*k*TileCols)
		for i := range ones {
			ones[i] = 1
		}
		PairPanel(panels, ones, TileCols, 2*k)
		copy(panels[k*TileCols:], panels)
		out := make([]float32, TileRows*2*TileCols)
		Multiply(&Product{Out: out, Stride: 2 * TileCols, Apart: TileCols, Rows: pointers, Taps: 1, K: k, Panels: panels, Step: k * TileCols, M: TileRows, N: 2, Pairs: true})
		for i, v := range out {
			row, v := i/(2*TileCols), float64(v)
			if math.IsNaN(v) != (row == 2) || math.IsInf(v, 1) != (row == 4) {
				t.Fatalf("row %d: %v", row, v)
			}
		}
	})
}
