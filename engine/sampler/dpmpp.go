package sampler

// dpmpp is DPM-Solver++(2M), algorithm 2 of Lu et al. 2022 (arXiv 2211.01095), and its stochastic
// variant SDE-DPM-Solver++(2M), appendix B there, which draws at every step but one to σ = 0. Both
// extrapolate from two clean samples with the midpoint rule, and from one at the first step and,
// where the last level asks for it, at the last. The stochastic one of third order (3M) has three.
// Reference: DPMSolverMultistepScheduler.
type dpmpp struct {
	levels []level
	coefs  []dpmppCoefs
	most   int // order
}

// dpmppCoefs make the next sample: noisy*x + clean*D0 + change*D1 + noise*z, where D0 is the newest
// clean sample and D1 = (D0 - the one before) * inverse. Of third order D1 is that, E, and ratio*(E - F) more, where
// F = (the one before - that before it) * inverse2, and change2*D2 is added with D2 = both*(E - F).
type dpmppCoefs struct {
	noisy, clean, change, inverse, noise float32
	inverse2, ratio, both, change2       float32
	order                                int // 1 has no D1
}

func newDPMPP(c settings, steps int) (*Sampler, error) {
	// The cosine schedule has no whole timesteps in the reference, which cuts what it does not round.
	s, levels, err := c.solverSampler(steps, c.betas.schedule != "squaredcos_cap_v2")
	if err != nil {
		return nil, err
	}
	r := dpmpp{levels: s.levels, most: c.order}
	const fewSteps = 15
	for i := range steps {
		order, few := min(i-c.first+1, c.order), c.lowerOrderFinal && steps < fewSteps
		switch {
		case i == steps-1 && (c.eulerAtFinal || few || !c.sigmaMin):
			order = 1
		case i == steps-2 && few:
			order = min(order, 2)
		}
		r.coefs = append(r.coefs, dpmppStep(levels, i, order, c.sde))
	}
	s.rule = r
	return s, nil
}

func dpmppStep(levels []solverLevel, i, order int, sde bool) dpmppCoefs {
	from, to := levels[i], levels[i+1]
	h := to.lambda - from.lambda
	k := dpmppCoefs{noisy: to.sigma / from.sigma, order: order}
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
	if order == 3 { // of the stochastic one
		r0, r1 := (from.lambda-levels[i-1].lambda)/h, (levels[i-1].lambda-levels[i-2].lambda)/h
		k.inverse2, k.ratio, k.both = 1/r1, r0/(r0+r1), 1/(r0+r1)
		double := 2 * h
		gone := 1 - exp32(-double)
		k.change = to.alpha * (gone/-double + 1)
		k.change2 = to.alpha * ((gone-double)/float32(double*double) - 0.5)
	}
	return k
}

func (r dpmpp) history(i int) []string {
	return []string{"clean.1", "clean.2"}[:min(i, r.most-1)]
}

func (r dpmpp) step(s State, prediction []float32, noise NoiseFunc) ([]float32, [][]float32) {
	k, clean, out := r.coefs[s.Step], make([]float32, len(prediction)), make([]float32, len(prediction))
	r.levels[s.Step].clean(clean, s.Latents, prediction)
	for i, d0 := range clean {
		out[i] = float32(k.noisy*s.Latents[i]) + float32(k.clean*d0)
	}
	for i := range out {
		if k.order == 1 {
			break
		}
		before := s.history[0].Data[i]
		d1 := float32(k.inverse * (clean[i] - before))
		if k.order == 3 {
			more := d1 - float32(k.inverse2*(before-s.history[1].Data[i]))
			d1 += float32(k.ratio * more)
			out[i] += float32(k.change2 * float32(k.both*more))
		}
		out[i] += float32(k.change * d1)
	}
	addNoise(out, k.noise, s.Step+1, noise)
	history := [][]float32{clean}
	for _, a := range s.history {
		history = append(history, a.Data)
	}
	return out, history
}
