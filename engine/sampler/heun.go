package sampler

import "slices"

// heun is Heun's method over σ: algorithm 1 of Karras et al. 2022 (arXiv 2206.00364) without churn.
// A step is an Euler step and then the same step again with the mean of the slopes at both ends; the
// last, to σ = 0, has no slope at its end and stays an Euler step. Reference: HeunDiscreteScheduler.
type heun struct {
	levels []level
	sigmas []float32
}

func newHeun(c settings, steps int) (*Sampler, error) {
	s, err := c.sigmaSampler(steps)
	if err != nil {
		return nil, err
	}
	// Every level but the first is evaluated twice: at the end of one step, and at the start of the next.
	s.timesteps = append(s.timesteps[:1:1], twice(s.timesteps[1:])...)
	s.sigmas = append(append(s.sigmas[:1:1], twice(s.sigmas[1:steps])...), s.sigmas[steps])
	if err := c.setLevels(s); err != nil {
		return nil, err
	}
	s.rule = heun{levels: s.levels, sigmas: s.sigmas}
	return s, nil
}

func twice[T any](list []T) []T {
	out := make([]T, 0, 2*len(list))
	for _, v := range list {
		out = append(out, v, v)
	}
	return out
}

func (r heun) history(i int) []string {
	if i%2 == 1 {
		return []string{"start", "slope"}
	}
	return nil
}

func (r heun) step(s State, prediction []float32, _ NoiseFunc) ([]float32, [][]float32) {
	i, slope := s.Step, r.levels[s.Step].slope(s.Latents, prediction)
	if i%2 == 0 {
		delta := r.sigmas[i+1] - r.sigmas[i]
		return along(s.Latents, slices.Clone(slope), delta), [][]float32{s.Latents, slope}
	}
	start, first := s.history[0].Data, s.history[1].Data
	for j, d := range slope {
		slope[j] = (first[j] + d) / 2
	}
	return along(start, slope, r.sigmas[i]-r.sigmas[i-1]), nil
}
