package sampler

import "math"

// tcd samples a model that was distilled to be consistent along trajectories (Zheng et al. 2024, arXiv 2402.19159): from a level the clean
// sample is noised to one below the next, η = 0 at the next itself and 1 at none, and from there a draw leads up to the next. Every step
// draws but the last, unless η is 0. Reference: TCDScheduler.
type tcd struct {
	levels []level
	coefs  []tcdCoefs
}

type tcdCoefs struct{ clean, noise, scale, draw float32 }

func newTCD(c settings, steps int) (*Sampler, error) {
	d, s, err := c.distilled(steps)
	if err != nil {
		return nil, err
	}
	r := tcd{levels: s.levels}
	for i := range s.timesteps {
		next := 0
		if i+1 < steps {
			next = int(s.timesteps[i+1])
		}
		below := int(math.Floor(float64(float32((1 - float64(c.eta)) * float64(next)))))
		bar, barNext := d.bar(below), d.bar(next)
		k := tcdCoefs{clean: sqrt32(bar), noise: sqrt32(1 - bar), scale: 1}
		if c.eta > 0 && i+1 < steps {
			ratio := barNext / bar
			k.scale, k.draw = sqrt32(ratio), sqrt32(1-ratio)
		}
		r.coefs = append(r.coefs, k)
	}
	s.rule = r
	return s, nil
}

func (r tcd) history(int) []string { return nil }

func (r tcd) step(s State, prediction []float32, draw NoiseFunc) ([]float32, [][]float32) {
	k, now := r.coefs[s.Step], r.levels[s.Step]
	noise, out := make([]float32, len(prediction)), make([]float32, len(prediction))
	now.clean(out, s.Latents, prediction)
	now.noise(noise, s.Latents, prediction)
	for i, clean := range out {
		out[i] = k.scale * (float32(k.clean*clean) + float32(k.noise*noise[i]))
	}
	addNoise(out, k.draw, s.Step+1, draw)
	return out, nil
}
