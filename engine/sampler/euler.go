package sampler

// euler is Euler's method over σ: algorithm 2 of Karras et al. 2022 (arXiv 2206.00364) without churn,
// so that it draws no noise. Reference: EulerDiscreteScheduler.
type euler struct {
	levels []level
	sigmas []float32
}

func newEuler(c settings, steps int) (*Sampler, error) {
	s, err := c.sigmaSampler(steps)
	if err != nil {
		return nil, err
	}
	s.rule = euler{levels: s.levels, sigmas: s.sigmas}
	return s, nil
}

func (r euler) history(int) []string { return nil }

func (r euler) step(s State, prediction []float32, _ NoiseFunc) ([]float32, [][]float32) {
	slope := r.levels[s.Step].slope(s.Latents, prediction)
	return along(s.Latents, slope, r.sigmas[s.Step+1]-r.sigmas[s.Step]), nil
}

// along is latents + slope*delta; it overwrites slope.
func along(latents, slope []float32, delta float32) []float32 {
	for i, d := range slope {
		slope[i] = latents[i] + float32(d*delta)
	}
	return slope
}
