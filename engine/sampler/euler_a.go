package sampler

// eulerAncestral is Euler's method to a σ below the next, and noise from there up to it, so that the
// variance is that of ancestral sampling: sample_euler_ancestral of k-diffusion (Crowson 2022). Every
// step draws but the last, which ends at σ = 0. Reference: EulerAncestralDiscreteScheduler.
type eulerAncestral struct {
	levels []level
	deltas []float32 // σ stepped down by
	up     []float32 // noise added
}

func newEulerAncestral(c settings, steps int) (*Sampler, error) {
	s, err := c.sigmaSampler(steps)
	if err != nil {
		return nil, err
	}
	r := eulerAncestral{levels: s.levels}
	for i, from := range s.sigmas[:steps] {
		to := s.sigmas[i+1]
		square, toSquare := float32(from*from), float32(to*to)
		up := min(to, c.eta*sqrt32(float32(toSquare*(square-toSquare))/square))
		down := sqrt32(max(toSquare-float32(up*up), 0)) // rounding may leave less than nothing
		r.deltas = append(r.deltas, down-from)
		r.up = append(r.up, up)
	}
	s.rule = r
	return s, nil
}

func (r eulerAncestral) history(int) []string { return nil }

func (r eulerAncestral) step(s State, prediction []float32, noise NoiseFunc) ([]float32, [][]float32) {
	out := along(s.Latents, r.levels[s.Step].slope(s.Latents, prediction), r.deltas[s.Step])
	addNoise(out, r.up[s.Step], s.Step+1, noise)
	return out, nil
}
