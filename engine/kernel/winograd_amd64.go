//go:build !purego

package kernel

import "unsafe"

//go:noescape
func winogradInputF2AVX2(dst *float32, stride int, src **float32, n int, tmp *float32)

//go:noescape
func winogradInputF4AVX2(dst *float32, stride int, src **float32, n int, tmp *float32)

//go:noescape
func winogradInputF4UpAVX2(dst *float32, stride int, src **float32, n int, tmp *float32)

//go:noescape
func winogradFilterF2AVX2(dst *float32, stride int, src **float32, n int, tmp *float32)

//go:noescape
func winogradFilterF4AVX2(dst *float32, stride int, src **float32, n int, tmp *float32)

//go:noescape
func winogradFilterF4UpAVX2(dst *float32, stride int, src **float32, n int, tmp *float32)

//go:noescape
func winogradOutputF2AVX2(dst *float32, row, pixel int, src *float32, stride int, bias, residual, tmp *float32)

//go:noescape
func winogradOutputF4AVX2(dst *float32, row, pixel int, src *float32, stride int, bias, residual, tmp *float32)

//go:noescape
func winogradOutputF4UpAVX2(dst *float32, row, pixel int, src *float32, stride int, bias, residual, tmp *float32)

//go:noescape
func block1AVX2(out, x *float32, k int, panel *float32, add int)

//go:noescape
func block2AVX2(out, x *float32, k int, panel *float32, add int)

//go:noescape
func block3AVX2(out, x *float32, k int, panel *float32, add int)

//go:noescape
func block4AVX2(out, x *float32, k int, panel *float32, add int)

//go:noescape
func block5AVX2(out, x *float32, k int, panel *float32, add int)

//go:noescape
func block6AVX2(out, x *float32, k int, panel *float32, add int)

func winogradInput(f Winograd, dst []float32, stride int, src []*float32, n int) {
	var tmp [8 * maxProducts]float32
	switch {
	case !useAVX2:
		winogradInputGeneric(f, dst, stride, src, n)
	case f == F2:
		winogradInputF2AVX2(&dst[0], stride, &src[0], n, &tmp[0])
	case f == F4:
		winogradInputF4AVX2(&dst[0], stride, &src[0], n, &tmp[0])
	case f == F4Up:
		winogradInputF4UpAVX2(&dst[0], stride, &src[0], n, &tmp[0])
	}
}

func winogradFilter(f Winograd, dst []float32, stride int, src []*float32, n int) {
	var tmp [8 * maxProducts]float32
	switch {
	case !useAVX2:
		winogradFilterGeneric(f, dst, stride, src, n)
	case f == F2:
		winogradFilterF2AVX2(&dst[0], stride, &src[0], n, &tmp[0])
	case f == F4:
		winogradFilterF4AVX2(&dst[0], stride, &src[0], n, &tmp[0])
	case f == F4Up:
		winogradFilterF4UpAVX2(&dst[0], stride, &src[0], n, &tmp[0])
	}
}

func winogradOutput(f Winograd, dst []float32, row, pixel int, src []float32, stride int, bias, residual []float32) {
	var tmp [8 * maxProducts]float32
	switch {
	case !useAVX2:
		winogradOutputGeneric(f, dst, row, pixel, src, stride, bias, residual)
	case f == F2:
		winogradOutputF2AVX2(&dst[0], row, pixel, &src[0], stride, &bias[0], unsafe.SliceData(residual), &tmp[0])
	case f == F4:
		winogradOutputF4AVX2(&dst[0], row, pixel, &src[0], stride, &bias[0], unsafe.SliceData(residual), &tmp[0])
	case f == F4Up:
		winogradOutputF4UpAVX2(&dst[0], row, pixel, &src[0], stride, &bias[0], unsafe.SliceData(residual), &tmp[0])
	}
}

func block(out, x []float32, k int, panel []float32, add bool) {
	if !useAVX2 {
		blockGeneric(out, x, k, panel, add)
		return
	}
	o, p, w, sum, rows := unsafe.Pointer(&out[0]), unsafe.Pointer(&x[0]), &panel[0], 0, len(out)/TileCols
	if add {
		sum = 1
	}
	for ; rows >= TileRows; rows -= TileRows {
		block6AVX2((*float32)(o), (*float32)(p), k, w, sum)
		o, p = unsafe.Add(o, 4*TileRows*TileCols), unsafe.Add(p, 4*TileRows*k)
	}
	switch rows {
	case 1:
		block1AVX2((*float32)(o), (*float32)(p), k, w, sum)
	case 2:
		block2AVX2((*float32)(o), (*float32)(p), k, w, sum)
	case 3:
		block3AVX2((*float32)(o), (*float32)(p), k, w, sum)
	case 4:
		block4AVX2((*float32)(o), (*float32)(p), k, w, sum)
	case 5:
		block5AVX2((*float32)(o), (*float32)(p), k, w, sum)
	}
}
