// Package sampler turns noise into latents: the noise schedules and samplers of diffusion models as
// pure step machines, and the random generator their noise comes from.
//
// A Sampler is a table made once from a model's scheduler_config.json, a sampler's name and a number
// of steps. A State is a value: Step takes one and a network's prediction and gives the next, touches
// nothing else, and noise is a pure function of (seed, draw), so that a run can be stored after any
// step and continued elsewhere with the same bits.
//
//	s, err := sampler.New("euler", cfg, 20)
//	noise := sampler.NewSource(seed)
//	st := s.Start(sampler.Noise(seed, 0, n))
//	for i := range s.Evaluations() {
//		s.ModelInput(st, in)
//		prediction := network(in, s.Timestep(i))
//		st = s.Step(st, prediction, noise.Draw)
//	}
//
// Arrays are flat and every operation works on one element at a time, so the layout is the caller's.
// Noise, however, is drawn in the order the reference has it: a caller whose latents are
// channels-last permutes what a NoiseFunc gives.
//
// Numbers follow diffusers (version in testdata/golden/samplers/samplers.json) to float32 rounding:
// schedules are computed with the widths numpy and torch use, and products are written float32(a*b)
// so that no compiler fuses them with a sum and every machine rounds alike.
//
// The package imports nothing of this project but engine/config.
package sampler
