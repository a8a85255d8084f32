package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestPack(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, c := range []struct{ rows, in, taps int }{
			{16, 1, 1},
			{16, 8, 1},
			{16, 16, 9},
			{16, 24, 4},
			{16, 40, 25},
			{16, 8, 26},
			{16, 3, 9},
			{16, 21, 9},
			{16, 1280, 1},
			{16, 320, 9},
			{1, 16, 1},
			{15, 32, 9},
			{3, 5, 2},
			{0, 8, 1},
			{16, 0, 9},
			{16, 8, 0},
		} {
			t.Run(fmt.Sprintf("%dx%dx%d", c.rows, c.in, c.taps), func(t *testing.T) {
				testPack(t, r, PackU8, c.rows, c.in, c.taps)
				testPack(t, r, PackU16, c.rows, c.in, c.taps)
				testPack(t, r, PackU32, c.rows, c.in, c.taps)
			})
		}
	})
}

func testPack[T uint8 | uint16 | uint32](t *testing.T, r *rand.Rand, pack func(dst, src []T, rows, in, taps int), rows, in, taps int) {
	t.Helper()
	src := make([]T, rows*in*taps)
	for i := range src {
		src[i] = T(r.Uint32())
	}
	const guard = 99
	dst := make([]T, TileCols*in*taps+8)
	for i := range dst {
		dst[i] = guard
	}
	pack(dst, src, rows, in, taps)
	for i, v := range dst {
		tap, input, row := i/TileCols/max(in, 1), i/TileCols%max(in, 1), i%TileCols
		want := T(0)
		switch {
		case i >= TileCols*in*taps:
			want = guard
		case row < rows:
			want = src[(row*in+input)*taps+tap]
		}
		if v != want {
			t.Fatalf("%T: tap %d, input %d, row %d: got %d, want %d", v, tap, input, row, v, want)
		}
	}
}

// BenchmarkPack packs panels of a 3x3 filter and a matrix, and reports gigabytes of weights a second.
func BenchmarkPack(b *testing.B) {
	eachVariantBench(b, func(b *testing.B) {
		for _, taps := range []int{1, 9} {
			const in = 1280
			u8, u16, u32 := make([]uint8, TileCols*in*taps), make([]uint16, TileCols*in*taps), make([]uint32, TileCols*in*taps)
			d8, d16, d32 := make([]uint8, len(u8)), make([]uint16, len(u8)), make([]uint32, len(u8))
			for _, c := range []struct {
				name string
				size int
				f    func()
			}{
				{"u8", 1, func() { PackU8(d8, u8, TileCols, in, taps) }},
				{"u16", 2, func() { PackU16(d16, u16, TileCols, in, taps) }},
				{"u32", 4, func() { PackU32(d32, u32, TileCols, in, taps) }},
			} {
				b.Run(fmt.Sprintf("%s/taps%d", c.name, taps), func(b *testing.B) {
					b.SetBytes(int64(c.size * len(u8)))
					for b.Loop() {
						c.f()
					}
				})
			}
		}
	})
}
