package kernel

func scaleGeneric(dst []float32, f float32) {
	for i := range dst {
		dst[i] *= f
	}
}

func axpyGeneric(dst []float32, a float32, x []float32) {
	for i, v := range x {
		dst[i] += a * v
	}
}

func addGeneric(dst, a, b []float32) {
	for i, v := range a {
		dst[i] = v + b[i]
	}
}

func preluGeneric(dst, x, slopes []float32) {
	for i, v := range x {
		dst[i] = prelu(v, slopes[i])
	}
}

func prelu(x, slope float32) float32 {
	if x < 0 {
		return x * slope
	}
	return x
}
