package sampler

// The common part of the samplers that integrate over noise levels σ, where a sample is the clean
// one plus σ times noise (Karras et al. 2022, arXiv 2206.00364): LMS, Heun, Euler and Euler ancestral.
// The network was trained on samples of unit variance, so its input is divided by √(σ²+1).

// tinyBar stands for a terminal ᾱ of zero, whose σ would be infinite; it gives σ = 4096.
const tinyBar = 0x1p-24

// sigmaSampler is the Sampler of these classes but for its rule: a timestep and a σ for each step,
// and the final σ.
func (c settings) sigmaSampler(steps int) (*Sampler, error) {
	table := noiseToSignal(c.alphasCumprod(tinyBar))
	timesteps := round32(c.timesteps(steps, false))
	sigmas := interpolate(timesteps, table)
	if c.schedule != "" {
		sigmas, timesteps = c.spaced(table, sigmas[0], sigmas[steps-1], steps)
		timesteps = round32(timesteps)
	}
	s := &Sampler{timesteps: timesteps, sigmas: c.closed(sigmas, table)}
	return s, c.setLevels(s)
}

// setLevels fills in what follows from the evaluations' sigmas.
func (c settings) setLevels(s *Sampler) error {
	s.divisors, s.levels = nil, nil
	var highest float32
	for i := range s.timesteps {
		sigma := s.sigmas[i]
		if !(sigma > 0) {
			return c.refuse(len(s.timesteps), "there is no noise at timestep %g (sigma %g)", s.timesteps[i], sigma)
		}
		highest = max(highest, sigma)
		s.divisors = append(s.divisors, sqrt32(float32(sigma*sigma)+1))
		s.levels = append(s.levels, level{kind: c.prediction, unscaled: true, sigma: sigma, clip: c.clip})
	}
	s.initSigma = highest
	if c.spacing == "leading" { // it starts below the highest level, where the signal still counts
		s.initSigma = sqrt32(float32(highest*highest) + 1)
	}
	return nil
}

// closed appends the level after the last step.
func (c settings) closed(sigmas []float64, table []float32) []float32 {
	out := make([]float32, len(sigmas)+1)
	for i, s := range sigmas {
		out[i] = float32(s)
	}
	if c.sigmaMin {
		out[len(sigmas)] = table[0]
	}
	return out
}

// round32 rounds to what a float32 holds, in place.
func round32(list []float64) []float64 {
	for i, v := range list {
		list[i] = float64(float32(v))
	}
	return list
}

// slope is dx/dσ towards the clean sample at level l: (x - clean)/σ.
func (l level) slope(latents, prediction []float32) []float32 {
	out := make([]float32, len(prediction))
	l.clean(out, latents, prediction)
	for i, clean := range out {
		out[i] = (latents[i] - clean) / l.sigma
	}
	return out
}
