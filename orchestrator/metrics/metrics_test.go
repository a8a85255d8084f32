package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/orchestrator/scale"
	"github.com/triptych-serving/triptych/stage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scrape serves m over TCP until the test ends and returns the value of every series that is not a
// bucket of a histogram, by its name and labels.
func scrape(t *testing.T, m *Metrics) map[string]float64 {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- m.Serve(ctx, lis) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + lis.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for name, family := range families {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue // not ours
		}
		if !strings.HasPrefix(name, "triptych_") || family.GetHelp() == "" {
			t.Errorf("%s has the help %q", name, family.GetHelp())
		}
		for _, series := range family.GetMetric() {
			var labels []string
			for _, l := range series.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			key := strings.TrimPrefix(name, "triptych_") + "{" + strings.Join(labels, " ") + "}"
			if h := series.GetHistogram(); h != nil {
				out[key+" count"], out[key+" sum"] = float64(h.GetSampleCount()), h.GetSampleSum()
				continue
			}
			out[key] = series.GetCounter().GetValue() + series.GetGauge().GetValue()
		}
	}
	return out
}

// expect compares the series of some families.
func expect(t *testing.T, got map[string]float64, families string, want map[string]float64) {
	t.Helper()
	some := map[string]float64{}
	for key, value := range got {
		name, _, _ := strings.Cut(key, "{")
		if strings.Contains(" "+families+" ", " "+name+" ") {
			some[key] = value
		}
	}
	if diff := cmp.Diff(want, some); diff != "" {
		t.Error(diff)
	}
}

func nothing() residency.Snapshot { return residency.Snapshot{} }

func none() []fleet.ServiceState { return nil }

func noModels() []fleet.Model { return nil }

func noBacklog() scale.Backlog { return scale.Backlog{} }
func nobody() bool             { return false }

// TestBytes: the series of bytes are the snapshot's at the time of the scrape. Replicas on one device
// add up, and all states together are what is used.
func TestBytes(t *testing.T) {
	gpu, cpu := residency.Device{Host: "h", Name: "gpu:0", BudgetBytes: 1000}, residency.Device{Host: "h", Name: "cpu:0"}
	snapshot := residency.Snapshot{
		Devices: []residency.DeviceUse{{Device: cpu, UsedBytes: 40, PeakBytes: 41}, {Device: gpu, UsedBytes: 665, PeakBytes: 900, ForeignBytes: 300}},
		Hosts:   []residency.HostUse{{Host: "h", UsedBytes: 72, BudgetBytes: 80}},
		Stages: []residency.StageUse{
			{Stage: "a", Kind: stage.KindDenoiser, Host: "h", Device: "h/gpu:0", Request: 1, Components: []string{"m/unet"}, Leased: true, ScratchBytes: 50},
			{Stage: "b", Kind: stage.KindDenoiser, Host: "h", Device: "h/gpu:0", Request: 2, Components: []string{"m/unet"}, ScratchBytes: 10},
			{Stage: "c", Kind: stage.KindEncoder, Host: "h", Device: "h/cpu:0"},
		},
		Components: []residency.ComponentUse{
			{Stage: "a", Kind: stage.KindDenoiser, Component: "m/unet", State: residency.Resident, WeightsBytes: 300},
			{Stage: "a", Kind: stage.KindDenoiser, Component: "n/unet", State: residency.Evicting, WeightsBytes: 5, WarmBytes: 5},
			{Stage: "a", Kind: stage.KindDenoiser, Component: "o/unet", State: residency.Warm, WarmBytes: 67},
			{Stage: "b", Kind: stage.KindDenoiser, Component: "m/unet", State: residency.Resident, WeightsBytes: 300},
			{Stage: "c", Kind: stage.KindEncoder, Component: "m/text_encoder", State: residency.Loading, WeightsBytes: 40},
		},
		Waiting:       []residency.Waiter{{Need: residency.Need{Kind: stage.KindDenoiser}}, {Need: residency.Need{Kind: stage.KindDenoiser}}},
		Restarts:      map[stage.Kind]int{stage.KindDenoiser: 3},
		DroppedEvents: 7,
	}
	owns := true
	m := New(Sources{func() residency.Snapshot { return snapshot }, func() []fleet.ServiceState {
		return []fleet.ServiceState{{Kind: stage.KindDenoiser, Address: "a:1"}, {Kind: stage.KindDenoiser, Address: "b:1", Problem: "it does not answer"}, {Kind: stage.KindEncoder, Address: "c:1"}}
	}, noModels, noBacklog, func() bool { return owns }})
	families := "reserved_bytes used_bytes peak_bytes foreign_bytes budget_bytes warm_bytes warm_budget_bytes waiting_requests dropped_decisions_total stage_up owner replicas runtime_restarts_total"
	expect(t, scrape(t, m), families, map[string]float64{
		"reserved_bytes{component=m/unet device=h/gpu:0 kind=denoiser model=m state=resident}":       600,
		"reserved_bytes{component=n/unet device=h/gpu:0 kind=denoiser model=n state=evicting}":       5,
		"reserved_bytes{component=m/unet device=h/gpu:0 kind=denoiser model=m state=scratch}":        60,
		"reserved_bytes{component=m/text_encoder device=h/cpu:0 kind=encoder model=m state=loading}": 40,
		"used_bytes{device=h/gpu:0}":                                665,
		"used_bytes{device=h/cpu:0}":                                40,
		"peak_bytes{device=h/gpu:0}":                                900,
		"peak_bytes{device=h/cpu:0}":                                41,
		"foreign_bytes{device=h/gpu:0}":                             300,
		"foreign_bytes{device=h/cpu:0}":                             0,
		"budget_bytes{device=h/gpu:0}":                              1000,
		"warm_bytes{component=n/unet host=h kind=denoiser model=n}": 5,
		"warm_bytes{component=o/unet host=h kind=denoiser model=o}": 67,
		"warm_budget_bytes{host=h}":                                 80,
		"waiting_requests{kind=encoder}":                            0,
		"waiting_requests{kind=denoiser}":                           2,
		"waiting_requests{kind=decoder}":                            0,
		"dropped_decisions_total{}":                                 7,
		"replicas{kind=encoder}":                                    1,
		"replicas{kind=denoiser}":                                   1,
		"replicas{kind=decoder}":                                    0,
		"runtime_restarts_total{kind=encoder}":                      0,
		"runtime_restarts_total{kind=denoiser}":                     3,
		"runtime_restarts_total{kind=decoder}":                      0,
		"stage_up{kind=denoiser service=a:1}":                       1,
		"stage_up{kind=denoiser service=b:1}":                       0,
		"stage_up{kind=encoder service=c:1}":                        1,
		"owner{}":                                                   1,
	})
	snapshot, owns = residency.Snapshot{}, false
	expect(t, scrape(t, m), "reserved_bytes used_bytes dropped_decisions_total owner", map[string]float64{"dropped_decisions_total{}": 0, "owner{}": 0})
}

// TestBacklog: each kind has a series for each model it has components of, and one for no known model, whatever requests ask for.
func TestBacklog(t *testing.T) {
	backlog := scale.Backlog{}
	models := func() []fleet.Model {
		part := func(kind stage.Kind) fleet.Component { return fleet.Component{Kind: kind} }
		return []fleet.Model{
			{Name: "m", Components: []fleet.Component{part(stage.KindEncoder), part(stage.KindEncoder), part(stage.KindDenoiser), part(stage.KindDecoder)}},
			{Name: "n", Components: []fleet.Component{part(stage.KindDenoiser)}},
		}
	}
	m := New(Sources{nothing, none, models, func() scale.Backlog { return backlog }, func() bool { return true }})
	want := map[string]float64{}
	for _, series := range []string{
		"kind=encoder model=", "kind=denoiser model=", "kind=decoder model=", "kind=encoder model=m", "kind=denoiser model=m", "kind=decoder model=m", "kind=denoiser model=n",
	} {
		want["backlog_requests{"+series+"}"], want["backlog_seconds{"+series+"}"] = 0, 0
	}
	expect(t, scrape(t, m), "backlog_requests backlog_seconds", want)
	need := residency.Need{Kind: stage.KindDenoiser, Work: residency.Workload{Model: "n", Evaluations: 20}}
	backlog = scale.Of(residency.Snapshot{
		Waiting: []residency.Waiter{{Job: "a", Need: need}}, Announced: []residency.Announced{{Job: "b", Need: need, Times: 1}},
	}, []scale.Unplanned{{Job: "c", Asked: "the text of a caller"}}, &scale.Paces{})
	want["backlog_requests{kind=denoiser model=n}"], want["backlog_seconds{kind=denoiser model=n}"] = 2, 40*scale.NominalSeconds
	for _, kind := range stage.Kinds() {
		series := "{kind=" + kind.String() + " model=}"
		want["backlog_requests"+series], want["backlog_seconds"+series] = 1, scale.NominalSeconds
	}
	expect(t, scrape(t, m), "backlog_requests backlog_seconds", want)

	m.Evaluated("n", 3)
	m.Evaluated("n", 4)
	expect(t, scrape(t, m), "denoising_steps_total", map[string]float64{"denoising_steps_total{model=n}": 7})
}

// life is a component that is loaded, used by a request that waited, evicted and prefetched.
func life(job residency.JobID, model string) []residency.Event {
	event := func(a residency.Action, c residency.Class, took time.Duration) residency.Event {
		return residency.Event{Action: a, Class: c, Took: took, Stage: "a", Kind: stage.KindDenoiser, Component: model + "/unet", Job: job, Reason: "because of " + string(job)}
	}
	return []residency.Event{
		event(residency.Reserve, 0, 2*time.Second),
		event(residency.Load, 0, 0),
		event(residency.Loaded, 0, 4*time.Second),
		event(residency.Grant, 0, 4*time.Second),
		event(residency.Release, residency.WorkDone, 8*time.Second),
		event(residency.Evict, residency.ForPrefetch, 0),
		event(residency.Release, residency.Evicted, time.Second),
		event(residency.Prefetch, 0, 0),
		event(residency.Loaded, 0, 3*time.Second),
		event(residency.Withdraw, 0, 16*time.Second),
	}
}

// TestDecisions: what the record sums up to.
func TestDecisions(t *testing.T) {
	m := New(Sources{nothing, none, noModels, noBacklog, nobody})
	for _, e := range life("job", "m") {
		m.Decided(e)
	}
	// A stage that joins with weights: nobody waited, and to load them again is a reload.
	m.Decided(residency.Event{Action: residency.Reserve, Class: residency.Found, Stage: "b", Kind: stage.KindEncoder, Component: "m/text_encoder"})
	m.Decided(residency.Event{Action: residency.Loaded, Stage: "b", Kind: stage.KindEncoder, Component: "m/text_encoder", Took: time.Second})
	m.Decided(residency.Event{Action: residency.Loaded, Stage: "c", Kind: stage.KindEncoder, Component: "m/text_encoder", Took: time.Second})
	// Weights that the host kept.
	m.Decided(residency.Event{Action: residency.Keep, Stage: "d", Kind: stage.KindDecoder, Component: "m/vae.decoder"})
	m.Decided(residency.Event{Action: residency.Loaded, Class: residency.FromWarm, Stage: "d", Kind: stage.KindDecoder, Component: "m/vae.decoder", Took: time.Second})
	got := scrape(t, m)
	expect(t, got, "loads_total load_seconds reload_seconds wait_seconds", map[string]float64{
		"loads_total{component=m/unet kind=denoiser model=m trigger=request}":              1,
		"loads_total{component=m/unet kind=denoiser model=m trigger=prefetch}":             1,
		"load_seconds{component=m/unet kind=denoiser model=m source=files} count":          2,
		"load_seconds{component=m/unet kind=denoiser model=m source=files} sum":            7,
		"load_seconds{component=m/text_encoder kind=encoder model=m source=files} count":   2,
		"load_seconds{component=m/text_encoder kind=encoder model=m source=files} sum":     2,
		"reload_seconds{component=m/unet kind=denoiser model=m source=files} count":        1,
		"reload_seconds{component=m/unet kind=denoiser model=m source=files} sum":          3,
		"reload_seconds{component=m/text_encoder kind=encoder model=m source=files} count": 1,
		"reload_seconds{component=m/text_encoder kind=encoder model=m source=files} sum":   1,
		"load_seconds{component=m/vae.decoder kind=decoder model=m source=warm} count":     1,
		"load_seconds{component=m/vae.decoder kind=decoder model=m source=warm} sum":       1,
		"reload_seconds{component=m/vae.decoder kind=decoder model=m source=warm} count":   1,
		"reload_seconds{component=m/vae.decoder kind=decoder model=m source=warm} sum":     1,
		"wait_seconds{kind=encoder} count":                                                 0,
		"wait_seconds{kind=encoder} sum":                                                   0,
		"wait_seconds{kind=denoiser} count":                                                2,
		"wait_seconds{kind=denoiser} sum":                                                  18,
		"wait_seconds{kind=decoder} count":                                                 0,
		"wait_seconds{kind=decoder} sum":                                                   0,
	})
	if n := got["decisions_total{action=evict class=for_prefetch kind=denoiser}"]; n != 1 {
		t.Errorf("%v evictions for a prefetch, want 1", n)
	}
}

// TestSeriesAreBounded: a thousand jobs make no more series than one.
func TestSeriesAreBounded(t *testing.T) {
	m := New(Sources{nothing, none, noModels, noBacklog, nobody})
	count := func(jobs int) int {
		for i := range jobs {
			for _, e := range life(residency.JobID(fmt.Sprint("job-", i)), "m") {
				e.Request = residency.RequestID(i)
				m.Decided(e)
			}
			m.Ended("", 0, time.Second, fmt.Errorf("no. %d: %w", i, stage.Errorf(stage.ModelDoesNotFit, "%d bytes", i)))
			m.Ended("m", i+1, time.Duration(i)*time.Second, fmt.Errorf("no. %d", i))
		}
		return len(scrape(t, m))
	}
	if one, many := count(1), count(1000); one != many || one == 0 {
		t.Errorf("one job makes %d series and a thousand %d", one, many)
	}
}

// TestEnds sorts the errors of jobs.
func TestEnds(t *testing.T) {
	m := New(Sources{nothing, none, noModels, noBacklog, nobody})
	for _, err := range []error{
		nil, nil, fmt.Errorf("wrapped: %w", context.Canceled), context.DeadlineExceeded, errors.New("a bug"), stage.Errorf(stage.QueueFull, "full"),
	} {
		m.Ended("m", 2, 3*time.Second, err)
	}
	m.Ended("", 0, time.Second, nil)
	expect(t, scrape(t, m), "images_total request_seconds", map[string]float64{
		"images_total{model=m}":                        12,
		"request_seconds{end=completed} count":         3,
		"request_seconds{end=completed} sum":           7,
		"request_seconds{end=cancelled} count":         1,
		"request_seconds{end=cancelled} sum":           3,
		"request_seconds{end=deadline_exceeded} count": 1,
		"request_seconds{end=deadline_exceeded} sum":   3,
		"request_seconds{end=engine_fault} count":      1,
		"request_seconds{end=engine_fault} sum":        3,
		"request_seconds{end=queue_full} count":        1,
		"request_seconds{end=queue_full} sum":          3,
	})
	expect(t, scrape(t, m), "jobs_total", map[string]float64{
		"jobs_total{end=completed}": 3, "jobs_total{end=cancelled}": 1, "jobs_total{end=deadline_exceeded}": 1,
		"jobs_total{end=engine_fault}": 1, "jobs_total{end=queue_full}": 1,
	})
}
