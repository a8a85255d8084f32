package tensor

import (
	"math"
	"testing"
)

// halves are the types of 16 bits.
var halves = []struct {
	dtype  DType
	narrow func(float32) uint16
	widen  func(uint16) float32
}{{F16, F32ToF16, F16ToF32}, {BF16, F32ToBF16, BF16ToF32}}

// TestNarrow: every number of 16 bits stays what it is; what is between two neighbours becomes the nearer one, and the even one
// from the middle.
func TestNarrow(t *testing.T) {
	for _, h := range halves {
		for n := range 1 << 16 {
			bits := uint16(n)
			v := h.widen(bits)
			got := h.narrow(v)
			if v != v {
				if w := h.widen(got); w == w {
					t.Fatalf("%v %04x: NaN became %v", h.dtype, bits, w)
				}
				continue
			}
			if got != bits {
				t.Fatalf("%v %04x = %v became %04x", h.dtype, bits, v, got)
			}
			next := h.widen(bits + 1)
			if math.IsInf(float64(v), 0) || next != next {
				continue
			}
			middle := float32((float64(v) + float64(next)) / 2)
			if math.IsInf(float64(next), 0) { // as if there was a number behind the largest
				middle = float32(float64(v) + (float64(v)-float64(h.widen(bits-1)))/2)
			}
			even := bits + bits&1
			for _, c := range []struct {
				v    float32
				want uint16
			}{{math.Nextafter32(middle, v), bits}, {middle, even}, {math.Nextafter32(middle, next), bits + 1}} {
				if got := h.narrow(c.v); got != c.want {
					t.Fatalf("%v: %v became %04x, want %04x", h.dtype, c.v, got, c.want)
				}
			}
		}
	}
}

// TestNarrowData: Narrow writes what Widen reads, and refuses what does not fit.
func TestNarrowData(t *testing.T) {
	src := []float32{1, -2, 0.5, 65504}
	for _, d := range []DType{F32, F16, BF16} {
		data, got := make([]byte, len(src)*d.Size()), make([]float32, len(src))
		if err := Narrow(data, d, src); err != nil {
			t.Fatal(err)
		}
		if err := Widen(got, d, data); err != nil || got[1] != -2 || got[2] != 0.5 || d != BF16 && got[3] != src[3] {
			t.Errorf("%v: %v, %v", d, got, err)
		}
		if err := Narrow(data[1:], d, src); err == nil {
			t.Errorf("%v: %d bytes for %d elements", d, len(data)-1, len(src))
		}
	}
	if Narrow(make([]byte, 4), I8, src) == nil {
		t.Error("I8 is taken for a floating point type")
	}
}
