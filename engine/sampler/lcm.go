package sampler

// lcm samples a latent consistency model (Luo et al. 2023, arXiv 2310.04378): the network's clean
// sample, blended with the noisy one by the boundary condition of consistency models, is noised again
// to the next level. Every step draws but the last. Reference: LCMScheduler.
type lcm struct {
	levels []level
	coefs  []lcmCoefs
}

type lcmCoefs struct{ skip, out, signal, noise float32 }

func newLCM(c settings, steps int) (*Sampler, error) {
	_, s, err := c.distilled(steps)
	if err != nil {
		return nil, err
	}
	r := lcm{levels: s.levels}
	for i, t := range s.timesteps {
		const dataVariance = 0.25
		scaled := float32(t) * float32(c.timestepScaling)
		square := float32(scaled*scaled) + dataVariance
		k := lcmCoefs{skip: dataVariance / square, out: scaled / sqrt32(square), signal: 1}
		if i+1 < steps {
			next := s.levels[i+1]
			k.signal, k.noise = next.alpha, next.sigma
		}
		r.coefs = append(r.coefs, k)
	}
	s.rule = r
	return s, nil
}

// distilled is the Sampler of a model that was distilled, but for its rule: its timesteps are evenly spaced ones of the original steps.
func (c settings) distilled(steps int) (d discrete, s *Sampler, err error) {
	stride := c.trainSteps / c.originalSteps
	if stride == 0 {
		return d, nil, c.refuse(steps, "the model has %d timesteps, expected at least %d", c.trainSteps, c.originalSteps)
	}
	timesteps := make([]float64, steps)
	for i := range timesteps {
		skipped := int(float64(i) * (float64(c.originalSteps) / float64(steps)))
		timesteps[i] = float64((c.originalSteps-skipped)*stride - 1)
	}
	d = c.discrete()
	s, err = d.sampler(c, timesteps)
	return d, s, err
}

func (r lcm) history(int) []string { return nil }

func (r lcm) step(s State, prediction []float32, noise NoiseFunc) ([]float32, [][]float32) {
	k, out := r.coefs[s.Step], make([]float32, len(prediction))
	r.levels[s.Step].clean(out, s.Latents, prediction)
	for i, clean := range out {
		denoised := float32(k.out*clean) + float32(k.skip*s.Latents[i])
		out[i] = k.signal * denoised
	}
	addNoise(out, k.noise, s.Step+1, noise)
	return out, nil
}
