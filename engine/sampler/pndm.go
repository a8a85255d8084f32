package sampler

import "slices"

// pndm is the pseudo linear multistep method of Liu et al. 2022 (arXiv 2202.09778), equation 12
// inside equation 11, started without Runge-Kutta steps: the second timestep is evaluated twice, once
// to predict and once, from the start again, to correct. Reference: PNDMScheduler with skip_prk_steps.
type pndm struct {
	first int
	coefs []pndmCoefs
}

// pndmCoefs move a sample along a noise estimate. They mix the prediction with the sample first where
// the network predicts velocities.
type pndmCoefs struct {
	velocity     bool
	alpha, sigma float32
	sample       float32
	delta, scale float32
}

func newPNDM(c settings, steps int) (*Sampler, error) {
	d := c.discrete()
	timesteps := c.timesteps(steps, true)
	if steps > 1 {
		timesteps = slices.Insert(timesteps, 1, timesteps[1])
	}
	s, err := d.sampler(c, timesteps)
	if err != nil {
		return nil, err
	}
	r := pndm{first: c.first}
	stride := c.trainSteps / steps
	for i, t := range timesteps {
		from := int(t)
		if i == c.first+1 {
			from += stride
		}
		if from >= c.trainSteps {
			return nil, c.refuse(steps, "timestep %d is not one of the model's, 0 to %d", from, c.trainSteps-1)
		}
		bar, before := d.bar(from), d.bar(from-stride)
		r.coefs = append(r.coefs, pndmCoefs{
			velocity: c.prediction == "v_prediction",
			alpha:    sqrt32(bar),
			sigma:    sqrt32(1 - bar),
			sample:   sqrt32(before / bar),
			delta:    before - bar,
			scale:    float32(bar*sqrt32(1-before)) + sqrt32(float32(float32(bar*(1-bar))*before)),
		})
	}
	s.rule = r
	return s, nil
}

// history is the last predictions, newest first, and once the sample to start from again.
func (r pndm) history(i int) []string {
	switch i {
	case 0:
		return nil
	case 1:
		return []string{"prediction.1", "start"}
	}
	return []string{"prediction.1", "prediction.2", "prediction.3"}[:min(i-1, 3)]
}

func (r pndm) step(s State, prediction []float32, _ NoiseFunc) ([]float32, [][]float32) {
	latents, blend := s.Latents, make([]float32, len(prediction))
	past := make([][]float32, len(s.history))
	for i, a := range s.history {
		past[i] = a.Data
	}
	switch s.Step - r.first {
	case 0:
		copy(blend, prediction)
		past = [][]float32{slices.Clone(prediction), latents}
	case 1:
		for i, p := range prediction {
			blend[i] = (p + past[0][i]) / 2
		}
		latents, past = past[1], past[:1]
	default:
		adamsBashforth(blend, prediction, past)
		past = append([][]float32{slices.Clone(prediction)}, past[:min(len(past), 2)]...)
	}
	return r.coefs[s.Step].move(blend, latents), past
}

// adamsBashforth extrapolates with as many past values, newest first, as there are.
func adamsBashforth(dst, now []float32, past [][]float32) {
	for i, p := range now {
		switch len(past) {
		case 1:
			dst[i] = (float32(3*p) - past[0][i]) / 2
		case 2:
			dst[i] = (float32(23*p) - float32(16*past[0][i]) + float32(5*past[1][i])) / 12
		default:
			dst[i] = float32(1.0/24) * (float32(55*p) - float32(59*past[0][i]) + float32(37*past[1][i]) - float32(9*past[2][i]))
		}
	}
}

// move is equation 11; it overwrites noise.
func (k pndmCoefs) move(noise, latents []float32) []float32 {
	for i, e := range noise {
		if k.velocity {
			e = float32(k.alpha*e) + float32(k.sigma*latents[i])
		}
		noise[i] = float32(k.sample*latents[i]) - float32(k.delta*e)/k.scale
	}
	return noise
}
