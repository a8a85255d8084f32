package sampler

// ddpm is ancestral sampling (Ho, Jain and Abbeel 2020, arXiv 2006.11239): the mean of the posterior
// (equation 7) plus noise of its variance (fixed_small in the reference, DDPMScheduler). Every step
// draws but one at timestep 0.
type ddpm struct {
	levels []level
	coefs  []ddpmCoefs
}

type ddpmCoefs struct{ clean, noisy, noise float32 }

func newDDPM(c settings, steps int) (*Sampler, error) {
	d := c.discrete()
	d.final = 1
	s, err := d.sampler(c, c.timesteps(steps, true))
	if err != nil {
		return nil, err
	}
	r := ddpm{levels: s.levels}
	for i, t := range s.timesteps {
		previous := -1
		if i+1 < len(s.timesteps) {
			previous = int(s.timesteps[i+1])
		}
		bar, barBefore := d.bar(int(t)), d.bar(previous)
		alpha := bar / barBefore
		beta := 1 - alpha
		k := ddpmCoefs{
			clean: float32(sqrt32(barBefore)*beta) / (1 - bar),
			noisy: float32(sqrt32(alpha)*(1-barBefore)) / (1 - bar),
		}
		if t > 0 {
			k.noise = sqrt32(max(float32((1-barBefore)/(1-bar)*beta), 1e-20))
		}
		r.coefs = append(r.coefs, k)
	}
	s.rule = r
	return s, nil
}

func (r ddpm) history(int) []string { return nil }

func (r ddpm) step(s State, prediction []float32, noise NoiseFunc) ([]float32, [][]float32) {
	k, out := r.coefs[s.Step], make([]float32, len(prediction))
	r.levels[s.Step].clean(out, s.Latents, prediction)
	for i, clean := range out {
		out[i] = float32(k.clean*clean) + float32(k.noisy*s.Latents[i])
	}
	addNoise(out, k.noise, s.Step+1, noise)
	return out, nil
}

// addNoise adds a draw, scaled; there is none to draw when the scale is 0.
func addNoise(dst []float32, scale float32, draw int, noise NoiseFunc) {
	if scale == 0 {
		return
	}
	drawn := make([]float32, len(dst))
	noise(draw, drawn)
	for i, n := range drawn {
		dst[i] += float32(scale * n)
	}
}
