//go:build !purego

package kernel

import "unsafe"

//go:noescape
func tile1AVX2(out *float32, rows **float32, taps, k int, panel *float32)

//go:noescape
func tile2AVX2(out *float32, rows **float32, taps, k int, panel *float32)

//go:noescape
func tile3AVX2(out *float32, rows **float32, taps, k int, panel *float32)

//go:noescape
func tile4AVX2(out *float32, rows **float32, taps, k int, panel *float32)

//go:noescape
func tile5AVX2(out *float32, rows **float32, taps, k int, panel *float32)

//go:noescape
func tile6AVX2(out *float32, rows **float32, taps, k int, panel *float32)

//go:noescape
func tile1AVX512(out *float32, rows **float32, taps, k int, panel *float32)

//go:noescape
func tile2AVX512(out *float32, rows **float32, taps, k int, panel *float32)

//go:noescape
func tile3AVX512(out *float32, rows **float32, taps, k int, panel *float32)

//go:noescape
func tile4AVX512(out *float32, rows **float32, taps, k int, panel *float32)

//go:noescape
func tile5AVX512(out *float32, rows **float32, taps, k int, panel *float32)

//go:noescape
func tile6AVX512(out *float32, rows **float32, taps, k int, panel *float32)

func tile(out []float32, rows []*float32, k int, panel []float32) {
	if !useAVX2 {
		tileGeneric(out, rows, k, panel)
		return
	}
	o, r, taps, p := unsafe.SliceData(out), unsafe.SliceData(rows), len(rows)/TileRows, unsafe.SliceData(panel)
	m := len(out) / TileCols
	if useAVX512 {
		switch m {
		case 1:
			tile1AVX512(o, r, taps, k, p)
		case 2:
			tile2AVX512(o, r, taps, k, p)
		case 3:
			tile3AVX512(o, r, taps, k, p)
		case 4:
			tile4AVX512(o, r, taps, k, p)
		case 5:
			tile5AVX512(o, r, taps, k, p)
		case 6:
			tile6AVX512(o, r, taps, k, p)
		}
		return
	}
	switch m {
	case 1:
		tile1AVX2(o, r, taps, k, p)
	case 2:
		tile2AVX2(o, r, taps, k, p)
	case 3:
		tile3AVX2(o, r, taps, k, p)
	case 4:
		tile4AVX2(o, r, taps, k, p)
	case 5:
		tile5AVX2(o, r, taps, k, p)
	case 6:
		tile6AVX2(o, r, taps, k, p)
	}
}
