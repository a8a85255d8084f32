//go:build !purego

package kernel

import "unsafe"

//go:noescape
func finishNoneAVX2(dst, acc, bias, shift, residual *float32, n int)

//go:noescape
func finishSiLUAVX2(dst, acc, bias, shift, residual *float32, n int)

//go:noescape
func finishGELUAVX2(dst, acc, bias, shift, residual *float32, n int)

//go:noescape
func finishQuickGELUAVX2(dst, acc, bias, shift, residual *float32, n int)

//go:noescape
func activateNoneAVX2(dst, x *float32, n int)

//go:noescape
func activateSiLUAVX2(dst, x *float32, n int)

//go:noescape
func activateGELUAVX2(dst, x *float32, n int)

//go:noescape
func activateQuickGELUAVX2(dst, x *float32, n int)

//go:noescape
func gegluAVX2(dst, x, gate *float32, n int)

//go:noescape
func finishNoneAVX512(dst, acc, bias, shift, residual *float32, n int)

//go:noescape
func finishSiLUAVX512(dst, acc, bias, shift, residual *float32, n int)

//go:noescape
func finishGELUAVX512(dst, acc, bias, shift, residual *float32, n int)

//go:noescape
func finishQuickGELUAVX512(dst, acc, bias, shift, residual *float32, n int)

//go:noescape
func activateNoneAVX512(dst, x *float32, n int)

//go:noescape
func activateSiLUAVX512(dst, x *float32, n int)

//go:noescape
func activateGELUAVX512(dst, x *float32, n int)

//go:noescape
func activateQuickGELUAVX512(dst, x *float32, n int)

//go:noescape
func gegluAVX512(dst, x, gate *float32, n int)

func finish(dst, acc, bias, shift, residual []float32, act Act) {
	if !useAVX2 {
		finishGeneric(dst, acc, bias, shift, residual, act)
		return
	}
	// The data of a nil slice is nil.
	b, s, r := unsafe.SliceData(bias), unsafe.SliceData(shift), unsafe.SliceData(residual)
	if useAVX512 {
		switch act {
		case SiLU:
			finishSiLUAVX512(&dst[0], &acc[0], b, s, r, len(acc))
		case GELU:
			finishGELUAVX512(&dst[0], &acc[0], b, s, r, len(acc))
		case QuickGELU:
			finishQuickGELUAVX512(&dst[0], &acc[0], b, s, r, len(acc))
		default:
			finishNoneAVX512(&dst[0], &acc[0], b, s, r, len(acc))
		}
		return
	}
	switch act {
	case SiLU:
		finishSiLUAVX2(&dst[0], &acc[0], b, s, r, len(acc))
	case GELU:
		finishGELUAVX2(&dst[0], &acc[0], b, s, r, len(acc))
	case QuickGELU:
		finishQuickGELUAVX2(&dst[0], &acc[0], b, s, r, len(acc))
	default:
		finishNoneAVX2(&dst[0], &acc[0], b, s, r, len(acc))
	}
}

func activate(dst, x []float32, act Act) {
	if !useAVX2 {
		activateGeneric(dst, x, act)
		return
	}
	if useAVX512 {
		switch act {
		case SiLU:
			activateSiLUAVX512(&dst[0], &x[0], len(x))
		case GELU:
			activateGELUAVX512(&dst[0], &x[0], len(x))
		case QuickGELU:
			activateQuickGELUAVX512(&dst[0], &x[0], len(x))
		default:
			activateNoneAVX512(&dst[0], &x[0], len(x))
		}
		return
	}
	switch act {
	case SiLU:
		activateSiLUAVX2(&dst[0], &x[0], len(x))
	case GELU:
		activateGELUAVX2(&dst[0], &x[0], len(x))
	case QuickGELU:
		activateQuickGELUAVX2(&dst[0], &x[0], len(x))
	default:
		activateNoneAVX2(&dst[0], &x[0], len(x))
	}
}

func geglu(dst, x, gate []float32) {
	switch {
	case useAVX512:
		gegluAVX512(&dst[0], &x[0], &gate[0], len(x))
	case useAVX2:
		gegluAVX2(&dst[0], &x[0], &gate[0], len(x))
	default:
		gegluGeneric(dst, x, gate)
	}
}
