package sampler

import "math"

// The noise schedule of a model: how much of the signal is left at each training timestep, as
// alphas_cumprod (ᾱ of Ho et al. 2020, arXiv 2006.11239), in the float32 steps the reference takes.

// alphasCumprod is ᾱ for every training timestep. tiny replaces a terminal ᾱ of zero for samplers
// that divide by it.
func (c settings) alphasCumprod(tiny float32) []float32 {
	betas := c.betas.values(c.trainSteps)
	if c.zeroSNR {
		betas = zeroTerminalSNR(betas)
	}
	bars := cumprod(betas)
	if c.zeroSNR && tiny > 0 {
		bars[len(bars)-1] = tiny
	}
	return bars
}

// values is β for n timesteps.
func (b betaSettings) values(n int) []float32 {
	switch {
	case len(b.trained) > 0:
		return b.trained
	case b.schedule == "scaled_linear": // linear in the square root: latent diffusion models
		betas := linspace32(float32(math.Sqrt(b.start)), float32(math.Sqrt(b.end)), n)
		for i, r := range betas {
			betas[i] = r * r
		}
		return betas
	case b.schedule == "squaredcos_cap_v2":
		return cosineBetas(n)
	default:
		return linspace32(float32(b.start), float32(b.end), n)
	}
}

// cosineBetas is the cosine schedule of Nichol and Dhariwal 2021 (arXiv 2102.09672), capped at 0.999.
func cosineBetas(n int) []float32 {
	bar := func(i int) float64 {
		c := math.Cos((float64(i)/float64(n) + 0.008) / 1.008 * math.Pi / 2)
		return c * c
	}
	betas := make([]float32, n)
	for i := range betas {
		betas[i] = float32(min(1-bar(i+1)/bar(i), 0.999))
	}
	return betas
}

// cumprod is the running product of 1-β, held in float64 as torch does on a CPU.
func cumprod(betas []float32) []float32 {
	bars, product := make([]float32, len(betas)), 1.0
	for i, b := range betas {
		product *= float64(1 - b)
		bars[i] = float32(product)
	}
	return bars
}

// zeroTerminalSNR rescales β so that nothing of the signal is left at the last timestep: algorithm 1
// of Lin et al. 2023 (arXiv 2305.08891). √ᾱ is shifted to end at zero and scaled to keep its start.
func zeroTerminalSNR(betas []float32) []float32 {
	roots := cumprod(betas)
	for i, bar := range roots {
		roots[i] = sqrt32(bar)
	}
	start, end := roots[0], roots[len(roots)-1]
	scale := start / (start - end)
	out := make([]float32, len(betas))
	before := float32(1)
	for i, root := range roots {
		root = float32((root - end) * scale)
		bar := float32(root * root)
		out[i] = 1 - bar/before
		before = bar
	}
	return out
}

// linspace32 is torch.linspace in float32, counted from the nearer end.
func linspace32(start, end float32, n int) []float32 {
	out := make([]float32, n)
	step := (end - start) / float32(n-1)
	for i := range out {
		if i < n/2 {
			out[i] = fma32(step, float32(i), start)
		} else {
			out[i] = fma32(-step, float32(n-i-1), end)
		}
	}
	return out
}

// noiseToSignal is σ = √((1-ᾱ)/ᾱ), the noise level of Karras et al. 2022 (arXiv 2206.00364), where a
// sample is the clean one plus σ times noise.
func noiseToSignal(bars []float32) []float32 {
	sigmas := make([]float32, len(bars))
	for i, bar := range bars {
		sigmas[i] = sqrt32((1 - bar) / bar)
	}
	return sigmas
}
