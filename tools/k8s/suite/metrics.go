//go:build linux

package suite

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// A sample is the value of a counter or a gauge.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// metrics are the orchestrator's, read at its Service or at a pod's address.
func (t *T) metrics(ctx context.Context, host string) ([]sample, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/metrics", http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", host, response.Status)
	}
	return samplesOf(response.Body)
}

// samplesOf reads Prometheus's text format.
func samplesOf(text io.Reader) ([]sample, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		return nil, err
	}
	var samples []sample
	for name, family := range families {
		for _, m := range family.GetMetric() {
			if m.GetHistogram() != nil || m.GetSummary() != nil {
				continue
			}
			s := sample{name: name, labels: map[string]string{}, value: m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()}
			for _, l := range m.GetLabel() {
				s.labels[l.GetName()] = l.GetValue()
			}
			samples = append(samples, s)
		}
	}
	return samples, nil
}

// sum adds up the samples of a name that have the label, if one is given.
func sum(samples []sample, name, label, value string) (total float64, found bool) {
	for _, s := range samples {
		if s.name == name && (label == "" || s.labels[label] == value) {
			total, found = total+s.value, true
		}
	}
	return total, found
}
