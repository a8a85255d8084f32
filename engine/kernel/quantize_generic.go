package kernel

import "math"

func absMaxGeneric(s []float32) float32 {
	most := uint32(0) // magnitudes are in the order of their bits, NaN last
	for _, v := range s {
		most = max(most, math.Float32bits(v)&0x7fffffff)
	}
	return math.Float32frombits(most)
}

func quantizeI8Generic(dst []int8, src []float32, scale float32) {
	for i, v := range src {
		dst[i] = int8(math.RoundToEven(float64(v / scale)))
	}
}
