package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// halfValue is the definition of IEEE 754 binary16, by its fields.
func halfValue(h uint16) float64 {
	sign, exponent, fraction := 1-2*float64(h>>15), int(h>>10&31), float64(h&1023)
	switch {
	case exponent == 31 && fraction != 0:
		return math.NaN()
	case exponent == 31:
		return sign * math.Inf(1)
	case exponent == 0:
		return math.Copysign(math.Ldexp(fraction, -24), sign)
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}

func TestWiden(t *testing.T) {
	all := make([]uint16, 1<<16)
	for i := range all {
		all[i] = uint16(i)
	}
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		dst := make([]float32, len(all))
		WidenF16(dst, all)
		for i, v := range dst {
			want := float32(halfValue(uint16(i)))
			if math.IsNaN(float64(want)) {
				// The payload is kept and the quiet bit set.
				want = math.Float32frombits(uint32(i)>>15<<31 | 0x7fc00000 | uint32(i)&0x3ff<<13)
			}
			if math.Float32bits(v) != math.Float32bits(want) {
				t.Fatalf("f16 %#04x: got %x, want %x", i, math.Float32bits(v), math.Float32bits(want))
			}
		}
		WidenBF16(dst, all)
		for i, v := range dst {
			if got, want := math.Float32bits(v), uint32(i)<<16; got != want {
				t.Fatalf("bf16 %#04x: got %x, want %x", i, got, want)
			}
		}
	})
}

func TestWidenLengths(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, n := range lengths() {
			src := make([]uint16, n)
			for i := range src {
				src[i] = uint16(r.UintN(0x7c00)) // finite and positive
			}
			f16, bf16 := guarded(t, n), guarded(t, n)
			WidenF16(f16, src)
			WidenBF16(bf16, src)
			for i, h := range src {
				if f16[i] != float32(halfValue(h)) || bf16[i] != math.Float32frombits(uint32(h)<<16) {
					t.Fatalf("length %d element %d: %#04x gave %v and %v", n, i, h, f16[i], bf16[i])
				}
			}
		}
	})
}

func TestWidenI8(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		scales := [TileCols]float32(normal(r, TileCols, 0.01))
		scales[3] = 0
		for _, rows := range []int{0, 1, 2, 3, 4, 5, 8, 9, 64} {
			src := make([]int8, rows*TileCols)
			for i := range src {
				src[i] = int8(r.UintN(256))
			}
			dst := guarded(t, len(src))
			WidenI8(dst, src, &scales)
			for i, q := range src {
				if want := float32(q) * scales[i%TileCols]; dst[i] != want {
					t.Fatalf("%d rows, element %d: %d gave %v, want %v", rows, i, q, dst[i], want)
				}
			}
		}
	})
}
