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
