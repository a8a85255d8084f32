//go:build !purego

package kernel

import "unsafe"

//go:noescape
func winogradInput2AVX2(dst *float32, stride int, src **float32, n int, tmp *float32)

//go:noescape
func winogradInput4AVX2(dst *float32, stride int, src **float32, n int, tmp *float32)

//go:noescape
func winogradFilter2AVX2(dst *float32, stride int, src **float32, n int, tmp *float32)

//go:noescape
func winogradFilter4AVX2(dst *float32, stride int, src **float32, n int, tmp *float32)

//go:noescape
func winogradOutput2AVX2(dst *float32, row, pixel int, src *float32, stride int, bias, residual, tmp *float32)

//go:noescape
func winogradOutput4AVX2(dst *float32, row, pixel int, src *float32, stride int, bias, residual, tmp *float32)

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

func winogradInput(m int, dst []float32, stride int, src []*float32, n int) {
	var tmp [8 * winogradSize]float32
	switch {
	case !useAVX2:
		winogradInputGeneric(m, dst, stride, src, n)
	case m == 2:
		winogradInput2AVX2(&dst[0], stride, &src[0], n, &tmp[0])
	default:
		winogradInput4AVX2(&dst[0], stride, &src[0], n, &tmp[0])
	}
}

func winogradFilter(m int, dst []float32, stride int, src []*float32, n int) {
	var tmp [8 * winogradSize]float32
	switch {
	case !useAVX2:
		winogradFilterGeneric(m, dst, stride, src, n)
	case m == 2:
		winogradFilter2AVX2(&dst[0], stride, &src[0], n, &tmp[0])
	default:
		winogradFilter4AVX2(&dst[0], stride, &src[0], n, &tmp[0])
	}
}

func winogradOutput(m int, dst []float32, row, pixel int, src []float32, stride int, bias, residual []float32) {
	var tmp [8 * winogradSize]float32
	switch {
	case !useAVX2:
		winogradOutputGeneric(m, dst, row, pixel, src, stride, bias, residual)
	case m == 2:
		winogradOutput2AVX2(&dst[0], row, pixel, &src[0], stride, &bias[0], unsafe.SliceData(residual), &tmp[0])
	default:
		winogradOutput4AVX2(&dst[0], row, pixel, &src[0], stride, &bias[0], unsafe.SliceData(residual), &tmp[0])
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
