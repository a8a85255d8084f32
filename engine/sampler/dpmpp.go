package sampler

// dpmpp is DPM-Solver++(2M), algorithm 2 of Lu et al. 2022 (arXiv 2211.01095), and its stochastic
// variant SDE-DPM-Solver++(2M), appendix B there, which draws at every step but one to σ = 0. Both
// extrapolate from two clean samples with the midpoint rule, and from one at the first step and,
// where the last level asks for it, at the last. Reference: DPMSolverMultistepScheduler.
type dpmpp struct {
	levels []level
	coefs  []dpmppCoefs
}

// dpmppCoefs make the next sample: noisy*x + clean*D0 + change*D1 + noise*z, where D0 is the newest
// clean sample and D1 = (D0 - the one before) * inverse.
type dpmppCoefs struct {
	noisy, clean, change, inverse, noise float32
	first                                bool // of first order: no D1
}

func newDPMPP(c settings, steps int) (*Sampler, error) {
	// The cosine schedule has no whole timesteps in the reference, which cuts what it does not round.
	s, levels, err := c.solverSampler(steps, c.betas.schedule != "squaredcos_cap_v2")
	if err != nil {
		return nil, err
	}
	r := dpmpp{levels: s.levels}
	const fewSteps = 15
	for i := range steps {
		k := dpmppStep(levels, i, c.sde)
		k.first = i == c.first || i == steps-1 && (c.eulerAtFinal || c.lowerOrderFinal && steps < fewSteps || !c.sigmaMin)
		r.coefs = append(r.coefs, k)
	}
	s.rule = r
	return s, nil
}

func dpmppStep(levels []solverLevel, i int, sde bool) dpmppCoefs {
	from, to := levels[i], levels[i+1]
	h := to.lambda - from.lambda
	k := dpmppCoefs{noisy: to.sigma / from.sigma}
	if sde {
		k.noisy *= exp32(-h)
		k.clean = to.alpha * (1 - exp32(-2*h))
		k.noise = to.sigma * sqrt32(1-exp32(-2*h))
	} else {
		k.clean = -(to.alpha * (exp32(-h) - 1))
	}
	k.change = 0.5 * k.clean
	if i > 0 {
		k.inverse = 1 / ((from.lambda - levels[i-1].lambda) / h)
	}
	return k
}

func (r dpmpp) history(i int) []string {
	if i > 0 {
		return []string{"clean.1"}
	}
	return nil
}

func (r dpmpp) step(s State, prediction []float32, noise NoiseFunc) ([]float32, [][]float32) {
	k, clean, out := r.coefs[s.Step], make([]float32, len(prediction)), make([]float32, len(prediction))
	r.levels[s.Step].clean(clean, s.Latents, prediction)
	for i, d0 := range clean {
		out[i] = float32(k.noisy*s.Latents[i]) + float32(k.clean*d0)
	}
	if !k.first {
		for i, before := range s.history[0].Data {
			d1 := float32(k.inverse * (clean[i] - before))
			out[i] += float32(k.change * d1)
		}
	}
	addNoise(out, k.noise, s.Step+1, noise)
	return out, [][]float32{clean}
}
