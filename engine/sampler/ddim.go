package sampler

// ddim is DDIM (Song, Meng and Ermon 2020, arXiv 2010.02502), equation 12 with η = 0: estimate the
// clean sample and the noise, and mix them again at the previous level. Reference: DDIMScheduler.
type ddim struct {
	levels []level
	before []level // the levels stepped to
}

func newDDIM(c settings, steps int) (*Sampler, error) {
	d := c.discrete()
	s, err := d.sampler(c, c.timesteps(steps, true))
	if err != nil {
		return nil, err
	}
	r := ddim{levels: s.levels}
	for _, t := range s.timesteps {
		bar := d.bar(int(t) - c.trainSteps/steps) // by stride, which is not always the next in the list
		r.before = append(r.before, level{alpha: sqrt32(bar), sigma: sqrt32(1 - bar)})
	}
	s.rule = r
	return s, nil
}

func (r ddim) history(int) []string { return nil }

func (r ddim) step(s State, prediction []float32, _ NoiseFunc) ([]float32, [][]float32) {
	now, before := r.levels[s.Step], r.before[s.Step]
	noise, out := make([]float32, len(prediction)), make([]float32, len(prediction))
	now.clean(out, s.Latents, prediction)
	now.noise(noise, s.Latents, prediction)
	for i, clean := range out {
		out[i] = float32(before.alpha*clean) + float32(before.sigma*noise[i])
	}
	return out, nil
}
