package sampler

import (
	"math"
	"slices"
	"sort"
)

// Which of the training timesteps a run visits: table 2 of Lin et al. 2023 (arXiv 2305.08891). All
// lists descend; arithmetic is numpy's, in float64.

// timesteps spreads a run over the training timesteps. Unrounded, linspace gives fractions.
func (c settings) timesteps(steps int, rounded bool) []float64 {
	switch c.spacing {
	case "linspace":
		return linspaceDown(float64(c.trainSteps-1), steps, rounded)
	case "leading":
		return leading(c.trainSteps/steps, steps, c.offset)
	default:
		return trailing(c.trainSteps, steps)
	}
}

// solverTimesteps is the variant of the multistep solvers: one more point, and the last, nearest to
// the clean sample, is left out.
func (c settings) solverTimesteps(steps int) []float64 {
	switch c.spacing {
	case "linspace":
		return linspaceDown(float64(c.trainSteps-1), steps+1, true)[:steps]
	case "leading":
		return leading(c.trainSteps/(steps+1), steps+1, c.offset)[:steps]
	default:
		return trailing(c.trainSteps, steps)
	}
}

func linspaceDown(stop float64, n int, rounded bool) []float64 {
	out := linspace(stop, n)
	if rounded {
		for i, t := range out {
			out[i] = math.RoundToEven(t)
		}
	}
	slices.Reverse(out)
	return out
}

// linspace is numpy.linspace(0, stop, n).
func linspace(stop float64, n int) []float64 {
	out := make([]float64, n)
	if n == 1 {
		return out
	}
	step := stop / float64(n-1)
	for i := range out {
		out[i] = float64(i) * step
	}
	out[n-1] = stop
	return out
}

func leading(ratio, n, offset int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[n-1-i] = float64(i*ratio + offset)
	}
	return out
}

// trailing is numpy.arange(train, 0, -train/n).round() - 1, which takes its stride from the
// difference of the first two elements. For some n (61 of 1000) rounding gives numpy one element
// more, a timestep of -1 after the last step; it is left out here.
func trailing(train, n int) []float64 {
	first := float64(train)
	stride := first - first/float64(n) - first
	out := make([]float64, n)
	for i := range out {
		out[i] = math.RoundToEven(first+float64(float64(i)*stride)) - 1
	}
	return out
}

// interpolate is numpy.interp over the integers: the value of table at each t, held at its ends.
func interpolate(ts []float64, table []float32) []float64 {
	out := make([]float64, len(ts))
	last := len(table) - 1
	for i, t := range ts {
		switch {
		case t <= 0:
			out[i] = float64(table[0])
		case t >= float64(last):
			out[i] = float64(table[last])
		default:
			j := int(t)
			low, high := float64(table[j]), float64(table[j+1])
			out[i] = float64((high-low)*(t-float64(j))) + low
		}
	}
	return out
}

// karras spaces noise levels from high to low so that most steps are spent at low noise: equation 5
// of Karras et al. 2022 (arXiv 2206.00364) with ρ = 7.
func karras(high, low float64, n int) []float64 {
	const rho = 7
	from, to := math.Pow(high, 1.0/rho), math.Pow(low, 1.0/rho)
	out := linspace(1, n)
	for i, ramp := range out {
		out[i] = math.Pow(from+float64(ramp*(to-from)), rho)
	}
	return out
}

// timestepsOf finds the timestep, with a fraction, of each sigma by its logarithm. table ascends.
func timestepsOf(sigmas []float64, table []float32) []float64 {
	logs := make([]float32, len(table))
	for i, s := range table {
		logs[i] = float32(math.Log(float64(s)))
	}
	out := make([]float64, len(sigmas))
	for i, sigma := range sigmas {
		target := math.Log(max(sigma, 1e-10))
		above := sort.Search(len(logs), func(j int) bool { return float64(logs[j]) > target })
		j := min(max(above-1, 0), len(logs)-2)
		w := (float64(logs[j]) - target) / float64(logs[j]-logs[j+1])
		w = min(max(w, 0), 1)
		out[i] = float64((1-w)*float64(j)) + float64(w*float64(j+1))
	}
	return out
}

// whole is t as an integer, to the nearest even one or cut.
func whole(t float64, rounded bool) float64 {
	if rounded {
		return math.RoundToEven(t)
	}
	return math.Trunc(t)
}
