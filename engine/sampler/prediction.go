package sampler

// prediction is what a network was trained to give: "epsilon", the noise; "v_prediction", the
// velocity of Salimans and Ho 2022 (arXiv 2202.00512); "sample", the clean sample.
type prediction string

// level is the noise level of one evaluation, and how a clean sample follows from a prediction there.
type level struct {
	kind prediction
	// A noisy sample is alpha*clean + sigma*noise with alpha²+sigma² = 1; or, if unscaled, as in
	// Karras et al. 2022, clean + sigma*noise.
	alpha, sigma float32
	unscaled     bool
	clip         float32 // bound of the clean sample, 0 for none
}

// clean estimates the clean sample from the noisy one and the prediction.
func (l level) clean(dst, noisy, prediction []float32) {
	switch {
	case l.kind == "sample":
		copy(dst, prediction)
	case l.kind == "epsilon" && l.unscaled:
		for i, p := range prediction {
			dst[i] = noisy[i] - float32(l.sigma*p)
		}
	case l.kind == "epsilon":
		for i, p := range prediction {
			dst[i] = (noisy[i] - float32(l.sigma*p)) / l.alpha
		}
	case l.unscaled:
		square := float32(l.sigma*l.sigma) + 1
		cp := -l.sigma / sqrt32(square)
		for i, p := range prediction {
			dst[i] = float32(p*cp) + noisy[i]/square
		}
	default:
		for i, p := range prediction {
			dst[i] = float32(l.alpha*noisy[i]) - float32(l.sigma*p)
		}
	}
	if l.clip > 0 {
		for i, v := range dst {
			dst[i] = min(max(v, -l.clip), l.clip)
		}
	}
}

// noise estimates the noise in a scaled noisy sample, whatever clean was clipped to.
func (l level) noise(dst, noisy, prediction []float32) {
	switch l.kind {
	case "epsilon":
		copy(dst, prediction)
	case "sample":
		for i, p := range prediction {
			dst[i] = (noisy[i] - float32(l.alpha*p)) / l.sigma
		}
	default:
		for i, p := range prediction {
			dst[i] = float32(l.alpha*p) + float32(l.sigma*noisy[i])
		}
	}
}
