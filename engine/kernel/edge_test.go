//go:build linux || darwin

package kernel

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"unsafe"
)

// atEdge returns n elements that end where the mapped memory ends: whoever reads or writes beyond them dies.
func atEdge[T any](t *testing.T, n int) []T {
	t.Helper()
	page := syscall.Getpagesize()
	size := (n*int(unsafe.Sizeof(*new(T))) + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, size+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(m); err != nil {
			t.Error(err)
		}
	})
	if err := syscall.Mprotect(m[size:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	all := unsafe.Slice((*T)(unsafe.Pointer(&m[0])), size/int(unsafe.Sizeof(*new(T))))
	return all[len(all)-n:]
}

// TestNothingBeyond: a masked load or conversion must not touch what lies under its dead lanes.
func TestNothingBeyond(t *testing.T) {
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		for n := 1; n < 35; n++ {
			x, y, z, dst := atEdge[float32](t, n), atEdge[float32](t, n), atEdge[float32](t, n), atEdge[float32](t, n)
			half, sum, squares := atEdge[uint16](t, n), atEdge[float64](t, n), atEdge[float64](t, n)
			WidenF16(dst, half)
			WidenBF16(dst, half)
			Add(dst, x, y)
			Scale(dst, 2)
			GEGLU(dst, x, y)
			LayerNorm(dst, x, y, z, 1e-5)
			ColumnMoments(sum, squares, x, y, n, 1)
			AbsMax(x)
			QuantizeI8(atEdge[int8](t, n), x, 1)
			for _, act := range acts {
				Finish(dst, x, y, z, y, act)
				Activate(dst, x, act)
				ScaleShift(dst, x, y, z, n, 1, act)
			}
			panels, rows := atEdge[float32](t, 3*n*TileCols), make([]*float32, 2*TileRows)
			for i := range rows {
				rows[i] = &atEdge[float32](t, n)[0]
			}
			for m := 1; m <= 2*TileRows; m++ {
				out := atEdge[float32](t, m*3*TileCols)
				Multiply(&Product{Out: out, Stride: 3 * TileCols, Apart: TileCols, Rows: rows, TileStep: TileRows, Taps: 1, K: n, Panels: panels, Step: n * TileCols, M: m, N: 3, Add: m%2 == 0})
			}
		}
	})
}
