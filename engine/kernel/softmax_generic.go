package kernel

import "math"

func maxRowGeneric(s []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range s {
		if v > m {
			m = v
		}
	}
	return m
}

func expRowGeneric(s []float32, scale, max float32) float32 {
	var sum float64
	for i, v := range s {
		// One rounding, as with a fused multiply-add: the product may be large beside the difference.
		x := float32(float64(v)*float64(scale) - float64(max))
		e := exp(x)
		if x < expLow {
			e = 0
		}
		s[i] = e
		sum += float64(e)
	}
	return float32(sum)
}
