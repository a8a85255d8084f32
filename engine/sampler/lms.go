package sampler

import "slices"

// lms is the linear multistep method over σ with up to four slopes, whose interpolating polynomial is
// integrated over the step: sample_lms of k-diffusion (Crowson 2022), in the setting of Karras et al.
// 2022 (arXiv 2206.00364). Reference: LMSDiscreteScheduler.
type lms struct {
	levels  []level
	weights [][]float32 // of the slopes of each step, newest first
}

const lmsOrder = 4

func newLMS(c settings, steps int) (*Sampler, error) {
	s, err := c.sigmaSampler(steps)
	if err != nil {
		return nil, err
	}
	r := lms{levels: s.levels}
	for i := range steps {
		r.weights = append(r.weights, lmsWeights(s.sigmas, i))
	}
	s.rule = r
	return s, nil
}

// lmsWeights integrates each Lagrange polynomial of the last levels over step i. They are of degree
// three at most, for which Simpson's rule is exact.
func lmsWeights(sigmas []float32, i int) []float32 {
	order := min(i+1, lmsOrder)
	at := func(k int) float64 { return float64(sigmas[i-k]) }
	from, to := at(0), float64(sigmas[i+1])
	weights := make([]float32, order)
	for j := range weights {
		lagrange := func(x float64) float64 {
			product := 1.0
			for k := range order {
				if k != j {
					product *= (x - at(k)) / (at(j) - at(k))
				}
			}
			return product
		}
		weights[j] = float32((to - from) / 6 * (lagrange(from) + 4*lagrange((from+to)/2) + lagrange(to)))
	}
	return weights
}

// history is the last slopes, newest first.
func (r lms) history(i int) []string {
	return []string{"slope.1", "slope.2", "slope.3"}[:min(i, lmsOrder-1)]
}

func (r lms) step(s State, prediction []float32, _ NoiseFunc) ([]float32, [][]float32) {
	slopes := [][]float32{r.levels[s.Step].slope(s.Latents, prediction)}
	for _, a := range s.history {
		slopes = append(slopes, a.Data)
	}
	out := make([]float32, len(prediction))
	for k, w := range r.weights[s.Step][:len(slopes)] { // a part has fewer at first; the reference leaves out their weights
		for i, d := range slopes[k] {
			out[i] += float32(w * d)
		}
	}
	for i, x := range s.Latents {
		out[i] += x
	}
	return out, slices.Clip(slopes[:min(len(slopes), lmsOrder-1)])
}
