package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestNarrow compares with the nearest of all values there are: every value itself, what lies between two neighbours,
// and what lies just beside the middle.
func TestNarrow(t *testing.T) {
	for name, c := range map[string]struct {
		narrow  func([]uint16, []float32)
		value   func(uint16) float64
		largest uint16
	}{
		"f16":  {NarrowF16, halfValue, 0x7bff},
		"bf16": {NarrowBF16, func(h uint16) float64 { return float64(math.Float32frombits(uint32(h) << 16)) }, 0x7f7f},
	} {
		for h := range c.largest {
			low, high := c.value(h), c.value(h+1)
			middle, even := float32((low+high)/2), h+h&1
			src := []float32{float32(low), middle, math.Nextafter32(middle, 0), math.Nextafter32(middle, math.MaxFloat32), -middle}
			want := []uint16{h, even, h, h + 1, 0x8000 | even}
			got := make([]uint16, len(src))
			c.narrow(got, src)
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("%s: %g between %g and %g gave %#04x, want %#04x", name, src[i], low, high, got[i], want[i])
				}
			}
		}
	}
	got := make([]uint16, 4)
	NarrowF16(got, []float32{65519, 65520, float32(math.Inf(-1)), float32(math.NaN())})
	if got[0] != 0x7bff || got[1] != 0x7c00 || got[2] != 0xfc00 || got[3]&0x7fff <= 0x7c00 {
		t.Errorf("at the end of the range: %#04x", got)
	}
}

func TestWidenI4(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		scales := [TileCols]float32(normal(r, TileCols, 0.01))
		scales[3] = 0
		for _, rows := range []int{0, 1, 2, 3, 4, 5, 8, 9, 64} {
			src := make([]uint8, rows*TileCols/2)
			for i := range src {
				src[i] = uint8(r.UintN(256))
			}
			dst := guarded(t, rows*TileCols)
			WidenI4(dst, src, &scales)
			for i, got := range dst {
				row, c := i/TileCols, i%TileCols
				q := int(src[row*TileCols/2+c%8]) >> (c / 8 * 4) & 15
				if want := float32(q-8) * scales[c]; got != want {
					t.Fatalf("%d rows, element %d: got %v, want %v", rows, i, got, want)
				}
			}
		}
	})
}

// TestQuantizeI4: what comes back lies within half a scale, the largest comes back itself, and zero stays zero.
func TestQuantizeI4(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, rows := range []int{1, 7, 64} {
		src := normal(r, rows*TileCols, 0.02)
		for i := range rows {
			src[i*TileCols+5] = 0
			src[i*TileCols+6] = 0x1p-130 // the scale would be a denormal
		}
		dst, back := make([]uint8, len(src)/2), make([]float32, len(src))
		var scales [TileCols]float32
		QuantizeI4(dst, src, &scales)
		WidenI4(back, dst, &scales)
		for c := range TileCols {
			most := 0.0
			for i := range rows {
				most = max(most, math.Abs(float64(src[i*TileCols+c])))
			}
			if want := float32(most) / 7; c != 6 && scales[c] != want || c == 6 && scales[c] != 0 {
				t.Errorf("column %d: scale %v, want %v", c, scales[c], want)
			}
			for i := range rows {
				v, got := float64(src[i*TileCols+c]), float64(back[i*TileCols+c])
				if c != 6 && math.Abs(v-got) > most/14*(1+1e-6) || (v == 0 || c == 6) && got != 0 {
					t.Errorf("row %d column %d: %g came back as %g, scale %g", i, c, v, got, scales[c])
				}
			}
		}
	}
}
