// Package stat says what samples amount to.
package stat

import "slices"

// Summary describes samples, in their unit.
type Summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	// Spread is what lies between the quartiles, as a part of the median.
	Spread float64 `json:"spread"`
	Reps   int     `json:"reps"`
}

// Summarize is zero for no samples. It does not change them.
func Summarize(samples []float64) Summary {
	if len(samples) == 0 {
		return Summary{}
	}
	s := slices.Sorted(slices.Values(samples))
	out := Summary{Median: quantile(s, 0.5), Min: s[0], Max: s[len(s)-1], Reps: len(s)}
	if out.Median != 0 {
		out.Spread = (quantile(s, 0.75) - quantile(s, 0.25)) / out.Median
	}
	return out
}

// quantile interpolates linearly between the samples of a sorted, non-empty slice.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	part := at - float64(i)
	return sorted[i]*(1-part) + sorted[i+1]*part
}
