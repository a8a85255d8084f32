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
			Finite(atEdge[uint8](t, n), ExponentF16)
			Finite(atEdge[uint8](t, 16*n), ExponentF16)
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

// TestNothingBeyondTiles is the same for the parts of an attention and the transforms of Winograd.
func TestNothingBeyondTiles(t *testing.T) {
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		for _, d := range []int{1, 4, 5, 8, 16, 23, 24, 40, 61, 64, 72, 80} {
			for _, keys := range []int{1, 2, 7, 16, 17, 77} {
				stride := (d + TileCols - 1) / TileCols * TileCols
				k, values := atEdge[float32](t, (keys-1)*stride+d), atEdge[float32](t, (keys-1)*stride+d)
				panels := atEdge[float32](t, (keys+TileCols-1)/TileCols*TileCols*d)
				PackKeys(panels, k, stride, keys, d)
				var rows [AttentionRows]*float32
				for i := range rows {
					rows[i] = &atEdge[float32](t, d)[0]
				}
				scores := (*[ScoreElems]float32)(atEdge[float32](t, ScoreElems))
				Scores(scores, &rows, panels, d, keys)
				var state Softmax
				state.Reset()
				Weigh(scores, keys, 1, &state)
				sums := atEdge[float32](t, AttentionRows*MixStride(d))
				for _, shrink := range []*[AttentionRows]float32{nil, &state.Shrink} {
					Mix(sums, scores, values, stride, keys, d, shrink)
				}
				Means(atEdge[float32](t, 2*stride+d), sums, stride, d, 3, &state)
			}
		}
		src, dst := make([]*float32, 36), atEdge[float32](t, 36*23)
		for i := range src {
			src[i] = &atEdge[float32](t, 23)[0]
		}
		for _, w := range winograds {
			WinogradInput(w.kind, dst[36*23-w.kind.Values()*23:], 23, src, 23)
			WinogradFilter(w.kind, dst[36*23-w.kind.Products()*23:], 23, (*[9]*float32)(src), 23)
			products, out := atEdge[float32](t, w.kind.Products()*TileCols), atEdge[float32](t, w.kind.Tile()*w.kind.Tile()*TileCols)
			WinogradOutput(w.kind, out, w.kind.Tile()*TileCols, TileCols, products, TileCols, (*[TileCols]float32)(atEdge[float32](t, TileCols)), (*[TileCols]float32)(atEdge[float32](t, TileCols)), out)
		}
	})
}
