//go:build !purego

package kernel

//go:noescape
func widenF16AVX2(dst *float32, src *uint16, n int)

//go:noescape
func widenBF16AVX2(dst *float32, src *uint16, n int)

//go:noescape
func widenI8AVX2(dst *float32, src *int8, scales *float32, n int)

//go:noescape
func widenI4AVX2(dst *float32, src *uint8, scales *float32, n int)

//go:noescape
func widenF16AVX512(dst *float32, src *uint16, n int)

//go:noescape
func widenBF16AVX512(dst *float32, src *uint16, n int)

func widenF16(dst []float32, src []uint16) {
	switch {
	case useAVX512:
		widenF16AVX512(&dst[0], &src[0], len(src))
	case useAVX2:
		widenF16AVX2(&dst[0], &src[0], len(src))
	default:
		widenF16Generic(dst, src)
	}
}

func widenBF16(dst []float32, src []uint16) {
	switch {
	case useAVX512:
		widenBF16AVX512(&dst[0], &src[0], len(src))
	case useAVX2:
		widenBF16AVX2(&dst[0], &src[0], len(src))
	default:
		widenBF16Generic(dst, src)
	}
}

func widenI4(dst []float32, src []uint8, scales *[TileCols]float32) {
	if useAVX2 {
		widenI4AVX2(&dst[0], &src[0], &scales[0], len(dst))
	} else {
		widenI4Generic(dst, src, scales)
	}
}

func widenI8(dst []float32, src []int8, scales *[TileCols]float32) {
	if useAVX2 {
		widenI8AVX2(&dst[0], &src[0], &scales[0], len(dst))
	} else {
		widenI8Generic(dst, src, scales)
	}
}
