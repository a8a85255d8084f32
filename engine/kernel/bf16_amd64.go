//go:build !purego

package kernel

import (
	"math"
	"unsafe"
)

//go:noescape
func tile1x16BF16(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile2x16BF16(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile3x16BF16(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile4x16BF16(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile5x16BF16(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile6x16BF16(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile1x32BF16(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile2x32BF16(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile3x32BF16(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile4x32BF16(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile5x32BF16(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func tile6x32BF16(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)

//go:noescape
func narrowRowBF16(dst *uint16, src *float32, n int)

//go:noescape
func pairRowsBF16(dst, src *float32, stride, rows int)

//go:noescape
func pairNarrowBF16(dst *float32, src *uint16, rows int)

// tileBF16 is tile for Pairs.
func tileBF16(m, n int, out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int) {
	switch {
	case n == 1 && m == 1:
		tile1x16BF16(out, stride, apart, rows, taps, k, panels, step, add)
	case n == 1 && m == 2:
		tile2x16BF16(out, stride, apart, rows, taps, k, panels, step, add)
	case n == 1 && m == 3:
		tile3x16BF16(out, stride, apart, rows, taps, k, panels, step, add)
	case n == 1 && m == 4:
		tile4x16BF16(out, stride, apart, rows, taps, k, panels, step, add)
	case n == 1 && m == 5:
		tile5x16BF16(out, stride, apart, rows, taps, k, panels, step, add)
	case n == 1 && m == 6:
		tile6x16BF16(out, stride, apart, rows, taps, k, panels, step, add)
	case n == 2 && m == 1:
		tile1x32BF16(out, stride, apart, rows, taps, k, panels, step, add)
	case n == 2 && m == 2:
		tile2x32BF16(out, stride, apart, rows, taps, k, panels, step, add)
	case n == 2 && m == 3:
		tile3x32BF16(out, stride, apart, rows, taps, k, panels, step, add)
	case n == 2 && m == 4:
		tile4x32BF16(out, stride, apart, rows, taps, k, panels, step, add)
	case n == 2 && m == 5:
		tile5x32BF16(out, stride, apart, rows, taps, k, panels, step, add)
	case n == 2 && m == 6:
		tile6x32BF16(out, stride, apart, rows, taps, k, panels, step, add)
	}
}

func pairRow(dst, src []float32) {
	if !HasBF16() {
		pairRowGeneric(dst, src)
		return
	}
	narrowRowBF16((*uint16)(unsafe.Pointer(&dst[0])), &src[0], len(src))
	if len(src)%2 == 1 {
		last := &dst[len(dst)-1]
		*last = math.Float32frombits(math.Float32bits(*last) & 0xffff)
	}
}

func pairRows(dst, src []float32, stride, rows int) {
	if HasBF16() {
		pairRowsBF16(&dst[0], &src[0], stride, rows)
	} else {
		pairRowsGeneric(dst, src, stride, rows)
	}
}

func pairNarrow(dst []float32, src []uint16, rows int) {
	if HasBF16() {
		pairNarrowBF16(&dst[0], &src[0], rows)
	} else {
		pairNarrowGeneric(dst, src, rows)
	}
}
