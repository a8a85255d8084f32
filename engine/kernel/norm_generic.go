package kernel

// columnSumsGeneric and columnSquaresGeneric begin with the channel from.
func columnSumsGeneric(sum []float64, x []float32, from int) {
	if from == len(sum) {
		return
	}
	for ; len(x) > 0; x = x[len(sum):] {
		for c, v := range x[from:len(sum)] {
			sum[from+c] += float64(v)
		}
	}
}

func columnSquaresGeneric(sq []float64, x, mean []float32, from int) {
	if from == len(sq) {
		return
	}
	for ; len(x) > 0; x = x[len(sq):] {
		for c, v := range x[from:len(sq)] {
			d := v - mean[from+c]
			sq[from+c] += float64(d) * float64(d)
		}
	}
}

func scaleShiftGeneric(dst, x, scale, shift []float32, act Act) {
	for i, v := range x {
		dst[i] = act.of(v*scale[i] + shift[i])
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
