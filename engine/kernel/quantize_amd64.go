//go:build !purego

package kernel

import "math"

//go:noescape
func absMaxAVX2(s *float32, n int) float32

//go:noescape
func quantizeI8AVX2(dst *int8, src *float32, n int, scale float32)

func absMax(s []float32) float32 {
	n := len(s) &^ 7
	if !useAVX2 || n == 0 {
		return absMaxGeneric(s)
	}
	a, b := absMaxAVX2(&s[0], n), absMaxGeneric(s[n:])
	return math.Float32frombits(max(math.Float32bits(a), math.Float32bits(b)))
}

func quantizeI8(dst []int8, src []float32, scale float32) {
	n := 0
	if useAVX2 && len(src) >= 32 {
		n = len(src) &^ 31
		quantizeI8AVX2(&dst[0], &src[0], n, scale)
	}
	quantizeI8Generic(dst[n:], src[n:], scale)
}
