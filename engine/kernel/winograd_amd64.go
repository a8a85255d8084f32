//go:build !purego

package kernel

import "unsafe"

//go:noescape
func winogradInputF2AVX2(dst *float32, stride int, src **float32, n int)

//go:noescape
func winogradInputF4AVX2(dst *float32, stride int, src **float32, n int)

//go:noescape
func winogradInputF4UpAVX2(dst *float32, stride int, src **float32, n int)

//go:noescape
func winogradFilterF2AVX2(dst *float32, stride int, src **float32, n int)

//go:noescape
func winogradFilterF4AVX2(dst *float32, stride int, src **float32, n int)

//go:noescape
func winogradFilterF4UpAVX2(dst *float32, stride int, src **float32, n int)

//go:noescape
func winogradOutputF2AVX2(dst *float32, row, pixel int, src *float32, stride int, bias, slopes, residual *float32)

//go:noescape
func winogradOutputF4AVX2(dst *float32, row, pixel int, src *float32, stride int, bias, slopes, residual *float32)

//go:noescape
func winogradOutputF4UpAVX2(dst *float32, row, pixel int, src *float32, stride int, bias, slopes, residual *float32)

//go:noescape
func winogradInputF2AVX512(dst *float32, stride int, src **float32, n int)

//go:noescape
func winogradInputF4AVX512(dst *float32, stride int, src **float32, n int)

//go:noescape
func winogradInputF4UpAVX512(dst *float32, stride int, src **float32, n int)

//go:noescape
func winogradFilterF2AVX512(dst *float32, stride int, src **float32, n int)

//go:noescape
func winogradFilterF4AVX512(dst *float32, stride int, src **float32, n int)

//go:noescape
func winogradFilterF4UpAVX512(dst *float32, stride int, src **float32, n int)

//go:noescape
func winogradOutputF2AVX512(dst *float32, row, pixel int, src *float32, stride int, bias, slopes, residual *float32)

//go:noescape
func winogradOutputF4AVX512(dst *float32, row, pixel int, src *float32, stride int, bias, slopes, residual *float32)

//go:noescape
func winogradOutputF4UpAVX512(dst *float32, row, pixel int, src *float32, stride int, bias, slopes, residual *float32)

func winogradInput(f Winograd, dst []float32, stride int, src []*float32, n int) {
	switch {
	case !useAVX2:
		winogradInputGeneric(f, dst, stride, src, n)
	case useAVX512 && f == F2:
		winogradInputF2AVX512(&dst[0], stride, &src[0], n)
	case useAVX512 && f == F4:
		winogradInputF4AVX512(&dst[0], stride, &src[0], n)
	case useAVX512 && f == F4Up:
		winogradInputF4UpAVX512(&dst[0], stride, &src[0], n)
	case f == F2:
		winogradInputF2AVX2(&dst[0], stride, &src[0], n)
	case f == F4:
		winogradInputF4AVX2(&dst[0], stride, &src[0], n)
	case f == F4Up:
		winogradInputF4UpAVX2(&dst[0], stride, &src[0], n)
	}
}

func winogradFilter(f Winograd, dst []float32, stride int, src []*float32, n int) {
	switch {
	case !useAVX2:
		winogradFilterGeneric(f, dst, stride, src, n)
	case useAVX512 && f == F2:
		winogradFilterF2AVX512(&dst[0], stride, &src[0], n)
	case useAVX512 && f == F4:
		winogradFilterF4AVX512(&dst[0], stride, &src[0], n)
	case useAVX512 && f == F4Up:
		winogradFilterF4UpAVX512(&dst[0], stride, &src[0], n)
	case f == F2:
		winogradFilterF2AVX2(&dst[0], stride, &src[0], n)
	case f == F4:
		winogradFilterF4AVX2(&dst[0], stride, &src[0], n)
	case f == F4Up:
		winogradFilterF4UpAVX2(&dst[0], stride, &src[0], n)
	}
}

func winogradOutput(f Winograd, dst []float32, row, pixel int, src []float32, stride int, bias, slopes *[TileCols]float32, residual []float32) {
	switch {
	case !useAVX2:
		winogradOutputGeneric(f, dst, row, pixel, src, stride, bias, slopes, residual)
	case useAVX512 && f == F2:
		winogradOutputF2AVX512(&dst[0], row, pixel, &src[0], stride, &bias[0], (*float32)(unsafe.Pointer(slopes)), unsafe.SliceData(residual))
	case useAVX512 && f == F4:
		winogradOutputF4AVX512(&dst[0], row, pixel, &src[0], stride, &bias[0], (*float32)(unsafe.Pointer(slopes)), unsafe.SliceData(residual))
	case useAVX512 && f == F4Up:
		winogradOutputF4UpAVX512(&dst[0], row, pixel, &src[0], stride, &bias[0], (*float32)(unsafe.Pointer(slopes)), unsafe.SliceData(residual))
	case f == F2:
		winogradOutputF2AVX2(&dst[0], row, pixel, &src[0], stride, &bias[0], (*float32)(unsafe.Pointer(slopes)), unsafe.SliceData(residual))
	case f == F4:
		winogradOutputF4AVX2(&dst[0], row, pixel, &src[0], stride, &bias[0], (*float32)(unsafe.Pointer(slopes)), unsafe.SliceData(residual))
	case f == F4Up:
		winogradOutputF4UpAVX2(&dst[0], row, pixel, &src[0], stride, &bias[0], (*float32)(unsafe.Pointer(slopes)), unsafe.SliceData(residual))
	}
}
