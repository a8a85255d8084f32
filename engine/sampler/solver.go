package sampler

// The common part of the multistep solvers in λ = ln(α/σ), DPM-Solver++ and UniPC: their levels have
// α²+σ² = 1, and both predict clean samples.

// solverLevel is a level with its λ.
type solverLevel struct{ alpha, sigma, lambda float32 }

func levelOf(sigma float32) solverLevel {
	alpha := 1 / sqrt32(float32(sigma*sigma)+1)
	l := solverLevel{alpha: alpha, sigma: float32(sigma * alpha)}
	l.lambda = ln32(l.alpha) - ln32(l.sigma)
	return l
}

// solverSampler is the Sampler of these classes but for its rule, and the levels of its evaluations
// and after the last. Timesteps are whole numbers but for those of k-diffusion's schedules; other schedules
// run over all levels whatever the spacing.
func (c settings) solverSampler(steps int, roundKarras bool) (*Sampler, []solverLevel, error) {
	table := noiseToSignal(c.alphasCumprod(tinyBar))
	timesteps := c.solverTimesteps(steps)
	var sigmas []float64
	if c.schedule != "" {
		sigmas, timesteps = c.spaced(table, float64(table[len(table)-1]), float64(table[0]), steps)
		for i, t := range timesteps {
			switch c.schedule {
			case Karras:
				timesteps[i] = whole(t, roundKarras)
			case Exponential, Beta:
				timesteps[i] = whole(t, false)
			}
		}
	} else {
		sigmas = interpolate(timesteps, table)
	}
	s := &Sampler{timesteps: timesteps, sigmas: c.closed(sigmas, table), initSigma: 1}
	levels := make([]solverLevel, len(s.sigmas))
	for i, sigma := range s.sigmas {
		levels[i] = levelOf(sigma)
		if i == steps {
			break
		}
		if !(sigma > 0) || i > 0 && !(sigma < s.sigmas[i-1]) {
			return nil, nil, c.refuse(steps, "noise levels do not fall: sigma %g at timestep %g", sigma, timesteps[i])
		}
		s.levels = append(s.levels, level{kind: c.prediction, alpha: levels[i].alpha, sigma: levels[i].sigma})
	}
	return s, levels, nil
}
