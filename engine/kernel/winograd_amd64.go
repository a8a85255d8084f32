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
