//go:build linux

package suite

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// A sample is one line of Prometheus's text format.
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
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", host, response.Status)
	}
	var samples []sample
	for line := range strings.Lines(string(text)) {
		if s, ok := parseSample(strings.TrimSpace(line)); ok {
			samples = append(samples, s)
		}
	}
	return samples, nil
}

// parseSample reads NAME{LABEL="VALUE",...} NUMBER. Values of our labels have no quotes in them.
func parseSample(line string) (sample, bool) {
	if line == "" || line[0] == '#' {
		return sample{}, false
	}
	cut := strings.LastIndexByte(line, ' ')
	if cut < 0 {
		return sample{}, false
	}
	value, err := strconv.ParseFloat(line[cut+1:], 64)
	if err != nil {
		return sample{}, false
	}
	s := sample{value: value, labels: map[string]string{}}
	var labels string
	s.name, labels, _ = strings.Cut(strings.TrimSuffix(line[:cut], "}"), "{")
	for labels != "" {
		var name, text string
		name, labels, _ = strings.Cut(labels, `="`)
		text, labels, _ = strings.Cut(labels, `"`)
		s.labels[name] = text
		labels = strings.TrimPrefix(labels, ",")
	}
	return s, true
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
