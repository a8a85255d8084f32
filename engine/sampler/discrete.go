package sampler

// discrete is the common part of the samplers that live on the training timesteps: DDIM, DDPM, PNDM
// and LCM look ᾱ up by a timestep's number.
type discrete struct {
	bars  []float32 // ᾱ of every training timestep
	final float32   // ᾱ before the first of them
}

func (c settings) discrete() discrete {
	d := discrete{bars: c.alphasCumprod(0), final: 1}
	if !c.finalAlpha {
		d.final = d.bars[0]
	}
	return d
}

// bar is ᾱ at a timestep.
func (d discrete) bar(t int) float32 {
	if t < 0 {
		return d.final
	}
	return d.bars[t]
}

// sampler is the Sampler of these timesteps, but for its rule.
func (d discrete) sampler(c settings, timesteps []float64) (*Sampler, error) {
	s := &Sampler{timesteps: timesteps, initSigma: 1, levels: make([]level, len(timesteps))}
	for i, t := range timesteps {
		if t < 0 || int(t) >= len(d.bars) {
			return nil, c.refuse(len(timesteps), "timestep %g is not one of the model's, 0 to %d", t, len(d.bars)-1)
		}
		bar := d.bars[int(t)]
		s.levels[i] = level{kind: c.prediction, alpha: sqrt32(bar), sigma: sqrt32(1 - bar), clip: c.clip}
	}
	return s, nil
}
