package orchestrator

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestMetrics: after a request, a scrape tells of its loads and its end, and the bytes by state are
// those that are used.
func TestMetrics(t *testing.T) {
	var script stagetest.Script
	o := options()
	o.Stages, o.Metrics = stages(t, &script), listen(t)
	lis := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- Run(ctx, lis, o) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := triptychv1alpha1.NewGenerationServiceClient(conn).Generate(t.Context(), &triptychv1alpha1.GenerateRequest{
		Spec: &triptychv1alpha1.GenerationSpec{Model: stagetest.Model, Prompt: "a boat"},
	})
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + o.Metrics.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	sum := func(name string) (total float64) {
		for _, m := range families[name].GetMetric() {
			total += value(m)
		}
		return total
	}
	for name, want := range map[string]float64{"triptych_loads_total": 3, "triptych_jobs_total": 1, "triptych_wait_seconds": 3, "triptych_load_seconds": 3, "triptych_reload_seconds": 0, "triptych_images_total": 1, "triptych_request_seconds": 1, "triptych_stage_up": 3, "triptych_replicas": 3, "triptych_backlog_requests": 0, "triptych_backlog_seconds": 0, "triptych_denoising_steps_total": 20} {
		if got := sum(name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes", "process_open_fds"} {
		if sum(name) <= 0 {
			t.Errorf("no %s", name)
		}
	}
	if held, used := sum("triptych_reserved_bytes"), sum("triptych_used_bytes"); held != used || used == 0 {
		t.Errorf("%v bytes by state, %v used", held, used)
	}
}

// value is a counter's or gauge's, or how often a histogram was told something.
func value(m *dto.Metric) float64 {
	return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
}
