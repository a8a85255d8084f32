package kernel

// columnMomentsGeneric begins with the channel from.
func columnMomentsGeneric(sum, sq []float64, x, about []float32, from, stride, pixels int) {
	if from == len(sum) {
		return
	}
	for p := range pixels {
		for c, v := range x[p*stride+from:][:len(sum)-from] {
			d := float64(v - about[from+c])
			sum[from+c] += d
			sq[from+c] += d * d
		}
	}
}

func scaleShiftGeneric(dst, x, scale, shift []float32, stride, pixels int, act Act) {
	for p := range pixels {
		dst := dst[p*stride:][:len(scale)]
		for i, v := range x[p*stride:][:len(scale)] {
			dst[i] = act.of(v*scale[i] + shift[i])
		}
	}
}

func rowSumGeneric(x []float32) float32 {
	var sum float64
	for _, v := range x {
		sum += float64(v)
	}
	return float32(sum)
}

func rowSquaresGeneric(x []float32, mean float32) float32 {
	var sum float64
	for _, v := range x {
		d := v - mean
		sum += float64(d) * float64(d)
	}
	return float32(sum)
}

func normalizeGeneric(dst, x, gamma, beta []float32, mean, inverse float32) {
	for i, v := range x {
		dst[i] = (v-mean)*inverse*gamma[i] + beta[i]
	}
}
