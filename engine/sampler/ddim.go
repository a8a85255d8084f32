package sampler

// ddim is DDIM (Song, Meng and Ermon 2020, arXiv 2010.02502), equation 12: estimate the clean sample and the noise, and mix
// them again at the previous level; of the noise η decides how much is drawn anew. Reference: DDIMScheduler.
type ddim struct {
	levels []level
	before []level   // the levels stepped to, without what is drawn
	drawn  []float32 // noise added
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
		to := level{alpha: sqrt32(bar), sigma: sqrt32(1 - bar)}
		drawn := float32(0)
		if c.eta > 0 {
			now := d.bar(int(t))
			drawn = c.eta * sqrt32((1-bar)/(1-now)*(1-now/bar))
			to.sigma = sqrt32(1 - bar - float32(drawn*drawn))
		}
		r.before, r.drawn = append(r.before, to), append(r.drawn, drawn)
	}
	s.rule = r
	return s, nil
}

func (r ddim) history(int) []string { return nil }

func (r ddim) step(s State, prediction []float32, draw NoiseFunc) ([]float32, [][]float32) {
	now, before := r.levels[s.Step], r.before[s.Step]
	noise, out := make([]float32, len(prediction)), make([]float32, len(prediction))
	now.clean(out, s.Latents, prediction)
	now.noise(noise, s.Latents, prediction)
	for i, clean := range out {
		out[i] = float32(before.alpha*clean) + float32(before.sigma*noise[i])
	}
	addNoise(out, r.drawn[s.Step], s.Step+1, draw)
	return out, nil
}
