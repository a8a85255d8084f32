package sampler

import "math"

// dpmppSDE is DPM-Solver++ (SDE) with two evaluations a step: sample_dpmpp_sde of k-diffusion (Crowson 2022) with r = 1/2. The first leads to the
// middle of the step by λ, the second, from there, over the whole of it; both are ancestral steps. The noise of a step is that of one Brownian motion
// over σ, of which the first draw is the part up to the middle. The last step, to σ = 0, is Euler's, and draws nothing. Reference:
// DPMSolverSDEScheduler.
type dpmppSDE struct {
	levels []level
	coefs  []sdeCoefs
}

// sdeCoefs lead from the sample at the beginning of a step.
type sdeCoefs struct {
	noisy, clean, up float32
	early, late      float32 // of the noise: of the draw up to the middle, and of that behind it
	last             bool
}

func newDPMPPSDE(c settings, steps int) (*Sampler, error) {
	s, err := c.sigmaSampler(steps)
	if err != nil {
		return nil, err
	}
	table := noiseToSignal(c.alphasCumprod(tinyBar))
	var sigmas []float32
	var timesteps []float64
	r := dpmppSDE{}
	for i, from := range s.sigmas[:steps] {
		to := s.sigmas[i+1]
		sigmas, timesteps = append(sigmas, from), append(timesteps, s.timesteps[i])
		if !(to > 0) {
			r.coefs = append(r.coefs, sdeCoefs{last: true})
			continue
		}
		middle := math.Exp((math.Log(float64(from)) + math.Log(float64(to))) / 2)
		sigmas, timesteps = append(sigmas, float32(middle)), append(timesteps, timestepsOf([]float64{middle}, table)[0])
		half, whole := ancestral(from, float32(middle)), ancestral(from, to)
		half.early = 1
		early, late := float64(from)-middle, middle-float64(to)
		whole.early, whole.late = float32(math.Sqrt(early/(early+late))), float32(math.Sqrt(late/(early+late)))
		r.coefs = append(r.coefs, half, whole)
	}
	s.timesteps, s.sigmas = round32(timesteps), append(sigmas, s.sigmas[steps])
	initial := s.initSigma
	if err := c.setLevels(s); err != nil {
		return nil, err
	}
	s.initSigma, r.levels = initial, s.levels
	s.rule = r
	return s, nil
}

// ancestral steps down below a level, with noise up to it.
func ancestral(from, to float32) sdeCoefs {
	square, toSquare := float32(from*from), float32(to*to)
	up := min(to, sqrt32(float32(toSquare*(square-toSquare))/square))
	down := sqrt32(max(toSquare-float32(up*up), 0))
	return sdeCoefs{noisy: down / from, clean: 1 - down/from, up: up}
}

// history is the sample at the step's beginning and the draw up to its middle, behind a first evaluation.
func (r dpmppSDE) history(i int) []string {
	if i%2 == 1 {
		return []string{"sample.1", "noise.1"}
	}
	return nil
}

func (r dpmppSDE) step(s State, prediction []float32, noise NoiseFunc) ([]float32, [][]float32) {
	k, l, out := r.coefs[s.Step], r.levels[s.Step], make([]float32, len(prediction))
	if k.last {
		return along(s.Latents, l.slope(s.Latents, prediction), -l.sigma), nil
	}
	l.clean(out, s.Latents, prediction)
	begin, first := s.Latents, make([]float32, len(out))
	drawn := first
	if len(s.history) > 0 {
		begin, first, drawn = s.history[0].Data, s.history[1].Data, make([]float32, len(out))
	}
	noise(s.Step+1, drawn)
	for i, clean := range out {
		z := drawn[i]
		if k.late > 0 {
			z = float32(k.early*first[i]) + float32(k.late*drawn[i])
		}
		out[i] = float32(k.noisy*begin[i]) + float32(k.clean*clean) + float32(k.up*z)
	}
	return out, [][]float32{begin, first}
}
