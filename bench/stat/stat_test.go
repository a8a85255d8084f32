package stat

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		name    string
		samples []float64
		want    Summary
	}{
		{"none", nil, Summary{}},
		{"one", []float64{3}, Summary{Median: 3, Min: 3, Max: 3, Reps: 1}},
		{"even", []float64{4, 1, 3, 2}, Summary{Median: 2.5, Min: 1, Max: 4, Spread: 1.5 / 2.5, Reps: 4}},
		{"odd, an outlier", []float64{10, 12, 11, 1000, 9}, Summary{Median: 11, Min: 9, Max: 1000, Spread: 2.0 / 11, Reps: 5}},
		{"all zero", []float64{0, 0}, Summary{Reps: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := append([]float64(nil), c.samples...)
			if diff := cmp.Diff(c.want, Summarize(c.samples), cmpopts.EquateApprox(0, 1e-12)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(before, c.samples); diff != "" {
				t.Error("the samples were changed:", diff)
			}
		})
	}
}
