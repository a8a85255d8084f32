//go:build linux

package e2e

import (
	"net/http"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// scrape gives the families of a server's metrics.
func scrape(t *testing.T, s *server) map[string]*dto.MetricFamily {
	t.Helper()
	answer, err := http.Get("http://" + s.addresses["metrics"] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// byKind is the loads of a family, by kind of stage.
func byKind(f *dto.MetricFamily) map[string]float64 {
	out := map[string]float64{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "kind" {
				out[l.GetValue()] += m.GetCounter().GetValue()
			}
		}
	}
	return out
}

// TestMetrics: `up --metrics-listen` tells where it is scraped, and an image's loads are there.
func TestMetrics(t *testing.T) {
	s := up(t, "--metrics-listen", "127.0.0.1:0")
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(2))}
	if _, err := s.generate(t.Context(), spec, nil); err != nil {
		t.Fatal(err)
	}
	families := scrape(t, s)
	for _, kind := range stageNames {
		if n := byKind(families["triptych_loads_total"])[kind]; n != 1 {
			t.Errorf("%v loads of the %s, want 1", n, kind)
		}
	}
}

var stageNames = []string{"encoder", "denoiser", "decoder"}
