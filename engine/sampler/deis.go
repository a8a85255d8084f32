package sampler

import (
	"math"
	"slices"
)

// deis is DEIS (Zhang and Chen 2022, arXiv 2204.13902) of second order in log ρ, where ρ = σ/α: the polynomial through the last two
// estimates of the noise is integrated over the step. The first step, and the last of few, are of first order. Reference:
// DEISMultistepScheduler.
type deis struct {
	levels []level
	coefs  []deisCoefs
}

type deisCoefs struct {
	noisy, now, before float32
	first              bool
}

func newDEIS(c settings, steps int) (*Sampler, error) {
	c.sigmaMin = true // the reference never ends without noise
	s, levels, err := c.solverSampler(steps, true)
	if err != nil {
		return nil, err
	}
	if slices.Contains([]string{Karras, Exponential, Beta}, c.schedule) { // there the last level comes twice
		s.sigmas[steps] = s.sigmas[steps-1]
		levels[steps] = levels[steps-1]
	}
	r := deis{levels: s.levels}
	const fewSteps = 15
	for i := range steps {
		from, to := levels[i], levels[i+1]
		k := deisCoefs{noisy: to.alpha / from.alpha}
		if k.first = i <= c.first || i == steps-1 && steps < fewSteps && c.lowerOrderFinal; k.first {
			k.now = -(to.sigma * (exp32(to.lambda-from.lambda) - 1))
		} else {
			rho := func(l solverLevel) float64 { return float64(l.sigma / l.alpha) }
			last := rho(levels[i-1])
			k.now = to.alpha * (integral(rho(to), rho(from), last) - integral(rho(from), rho(from), last))
			k.before = to.alpha * (integral(rho(to), last, rho(from)) - integral(rho(from), last, rho(from)))
		}
		r.coefs = append(r.coefs, k)
	}
	s.rule = r
	return s, nil
}

// integral is that of (ln t - ln c) / (ln b - ln c).
func integral(t, b, c float64) float32 {
	return float32(t * (-math.Log(c) + math.Log(t) - 1) / (math.Log(b) - math.Log(c)))
}

func (r deis) history(i int) []string {
	if i > 0 {
		return []string{"noise.1"}
	}
	return nil
}

func (r deis) step(s State, prediction []float32, _ NoiseFunc) ([]float32, [][]float32) {
	k, now := r.coefs[s.Step], r.levels[s.Step]
	noise, out := make([]float32, len(prediction)), make([]float32, len(prediction))
	now.clean(noise, s.Latents, prediction)
	for i, clean := range noise {
		noise[i] = (s.Latents[i] - float32(now.alpha*clean)) / now.sigma
		out[i] = float32(k.noisy*s.Latents[i]) + float32(k.now*noise[i])
	}
	if !k.first {
		for i, before := range s.history[0].Data {
			out[i] += float32(k.before * before)
		}
	}
	return out, [][]float32{noise}
}
