//go:build !purego

package kernel

//go:noescape
func maxRowAVX2(s *float32, n int) float32

//go:noescape
func expRowAVX2(s *float32, scale, max float32, n int) float32

func maxRow(s []float32) float32 {
	if useAVX2 {
		return maxRowAVX2(&s[0], len(s))
	}
	return maxRowGeneric(s)
}

func expRow(s []float32, scale, max float32) float32 {
	if useAVX2 {
		return expRowAVX2(&s[0], scale, max, len(s))
	}
	return expRowGeneric(s, scale, max)
}
