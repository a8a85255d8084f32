package sampler

// unipc is UniPC of order two in the B₂ variant (Zhao et al. 2023, arXiv 2302.04867), predicting clean
// samples. Each evaluation first corrects the step that led to it (UniC, algorithm 1), which takes
// that step again with the new clean sample as one more point, and then predicts the next (UniP,
// algorithm 2). Reference: UniPCMultistepScheduler.
type unipc struct {
	levels  []level
	predict []unipcCoefs // from level i to i+1
	correct []unipcCoefs // the same step, once more is known
}

// unipcCoefs make a sample at the end of a step: noisy*x + clean*m0 + weight*(older*D + newer*E), with
// x and m0 the sample and the clean sample at the start, D = (m1 - m0)/ratio the divided difference to
// the level before, and E the clean sample at the end less m0.
type unipcCoefs struct {
	order                int
	noisy, clean, weight float32
	ratio                float32
	older, newer         float32
}

func newUniPC(c settings, steps int) (*Sampler, error) {
	s, levels, err := c.solverSampler(steps, true)
	if err != nil {
		return nil, err
	}
	if c.schedule != "" && c.sigmaMin { // the reference repeats the lowest level of a schedule here
		s.sigmas[steps] = s.sigmas[steps-1]
		levels[steps] = levels[steps-1]
	}
	r := unipc{levels: s.levels}
	for i := range steps {
		p, q := unipcStep(levels, i, max(1, min(i-c.first+1, steps-i, 2)))
		r.predict, r.correct = append(r.predict, p), append(r.correct, q)
	}
	s.rule = r
	return s, nil
}

// unipcStep gives the coefficients to predict and to correct the step from level i.
func unipcStep(levels []solverLevel, i, order int) (predict, correct unipcCoefs) {
	from, to := levels[i], levels[i+1]
	h := to.lambda - from.lambda
	growth := expm132(-h) // B(h), and also h*φ₁
	k := unipcCoefs{
		order:  order,
		noisy:  to.sigma / from.sigma,
		clean:  -float32(to.alpha * growth),
		weight: -float32(to.alpha * growth),
	}
	predict, correct = k, k
	if order == 1 {
		correct.newer = 0.5
		return predict, correct
	}
	k.ratio = (levels[i-1].lambda - from.lambda) / h
	predict, correct = k, k
	predict.older = 0.5
	// Two points: older + newer = b1 and ratio*older + newer = b2, where b is φ₂ and 2φ₃ over B(h).
	phi := growth/-h - 1
	b1 := phi / growth
	b2 := (phi/-h - 0.5) * 2 / growth
	correct.older = (b2 - b1) / (k.ratio - 1)
	correct.newer = b1 - correct.older
	return predict, correct
}

// history is the last clean samples, newest first, and the sample the last step started from.
func (r unipc) history(i int) []string {
	switch i {
	case 0:
		return nil
	case 1:
		return []string{"start", "clean.1"}
	}
	return []string{"start", "clean.1", "clean.2"}
}

func (r unipc) step(s State, prediction []float32, _ NoiseFunc) ([]float32, [][]float32) {
	clean, latents := make([]float32, len(prediction)), s.Latents
	r.levels[s.Step].clean(clean, latents, prediction)
	cleans := [][]float32{clean}
	if len(s.history) > 0 {
		for _, a := range s.history[1:] {
			cleans = append(cleans, a.Data)
		}
		latents = r.correct[s.Step-1].move(s.history[0].Data, cleans[1:], clean)
	}
	out := r.predict[s.Step].move(latents, cleans, nil)
	history := append([][]float32{latents}, cleans[:min(len(cleans), 2)]...)
	return out, history
}

// move takes a step from start; past is the clean samples there and before, end that at its end.
func (k unipcCoefs) move(start []float32, past [][]float32, end []float32) []float32 {
	out := make([]float32, len(start))
	for i, x := range start {
		m0 := past[0][i]
		out[i] = float32(k.noisy*x) + float32(k.clean*m0)
		var more float32
		if k.order > 1 {
			more = float32(k.older * ((past[1][i] - m0) / k.ratio))
		}
		if end != nil {
			more += float32(k.newer * (end[i] - m0))
		}
		out[i] += float32(k.weight * more)
	}
	return out
}
