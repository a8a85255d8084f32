// Package metrics tells Prometheus what the orchestrator does: the bytes of the keeper's snapshot at
// the time of the scrape, and sums over its record of decisions.
//
// Labels are devices, kinds of stages, models, components and closed sets of words: how many series there are
// follows from the configuration and never from what requests say.
//
// The package may import orchestrator/fleet, residency and scale, stage, net/http and Prometheus' client.
package metrics

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/orchestrator/scale"
	"github.com/triptych-serving/triptych/stage"
)

// Metrics counts decisions and jobs.
type Metrics struct {
	registry *prometheus.Registry

	decisions *prometheus.CounterVec   // by action, class, kind
	loads     *prometheus.CounterVec   // by kind, model, component, trigger
	load      *prometheus.HistogramVec // by kind, model, component, source
	reload    *prometheus.HistogramVec // by kind, model, component, source
	wait      *prometheus.HistogramVec // by kind
	jobs      *prometheus.CounterVec   // by end
	images    *prometheus.CounterVec   // by model
	steps     *prometheus.CounterVec   // by model
	request   *prometheus.HistogramVec // by end

	held map[place]bool // what was resident once
}

// place is a component in a service.
type place struct {
	stage     residency.StageID
	component string
}

// The values of the label trigger.
const (
	triggerRequest  = "request"
	triggerPrefetch = "prefetch"
)

// The values of the label source.
const (
	sourceFiles = "files"
	sourceWarm  = "warm"
)

// Sources are asked at every scrape.
type Sources struct {
	Snapshot func() residency.Snapshot
	Services func() []fleet.ServiceState
	Models   func() []fleet.Model
	Backlog  func() scale.Backlog
	Owner    func() bool // whether the orchestrator owns the stages
}

// New makes metrics that have counted nothing.
func New(s Sources) *Metrics {
	registry := prometheus.NewRegistry()
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		registry.MustRegister(v)
		return v
	}
	buckets := prometheus.ExponentialBuckets(0.01, 2, 16) // to 328 s
	seconds := func(name, help string, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		registry.MustRegister(v)
		return v
	}
	m := &Metrics{
		registry: registry,
		decisions: count("triptych_decisions_total", "Decisions about memory, by action, kind of stage and, where an action has several reasons, class: "+
			"of evict for_request, for_prefetch, over_budget, unneeded, out_of_memory and failed.", "action", "class", "kind"),
		loads: count("triptych_loads_total", "Loads of weights that were begun, by what for: a request, or a prefetch before one.", "kind", "model", "component", "trigger"),
		load: seconds("triptych_load_seconds", "How long loads took that ended well, by where the weights were: in the model's files, or warm in the host's memory.",
			"kind", "model", "component", "source"),
		reload: seconds("triptych_reload_seconds", "How long those of triptych_load_seconds took that loaded again what the same service had held before: the price of evictions and lost processes.",
			"kind", "model", "component", "source"),
		wait:    seconds("triptych_wait_seconds", "How long requests waited for a stage and for bytes, evictions included, until they had them or gave up. Loads are not included.", "kind"),
		jobs:    count("triptych_jobs_total", "Calls of Generate that ended, by how: completed, cancelled, deadline_exceeded, or the reason of the error.", "end"),
		images:  count("triptych_images_total", "Images that were made, by model; those of requests that failed later included.", "model"),
		steps:   count("triptych_denoising_steps_total", "Evaluations of the denoiser's network that have ended, by model; those of requests that failed later included.", "model"),
		request: seconds("triptych_request_seconds", "How long calls of Generate took, the reading of their events included, by how they ended.", "end"),
		held:    map[place]bool{},
	}
	m.jobs.WithLabelValues(endCompleted)
	m.request.WithLabelValues(endCompleted)
	for _, kind := range stage.Kinds() {
		m.wait.WithLabelValues(kind.String())
	}
	registry.MustRegister(collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Evaluated counts evaluations of a denoiser's network. Safe for concurrent use.
func (m *Metrics) Evaluated(model string, n int) { m.steps.WithLabelValues(model).Add(float64(n)) }

// Decided counts a decision. It must not be called twice at once.
func (m *Metrics) Decided(e residency.Event) {
	kind, at := e.Kind.String(), place{e.Stage, e.Component}
	m.decisions.WithLabelValues(e.Action.String(), e.Class.String(), kind).Inc()
	switch e.Action {
	case residency.Load:
		m.loads.WithLabelValues(kind, e.Model(), e.Component, triggerRequest).Inc()
	case residency.Prefetch:
		m.loads.WithLabelValues(kind, e.Model(), e.Component, triggerPrefetch).Inc()
	case residency.Loaded:
		source := sourceFiles
		if e.Class == residency.FromWarm {
			source = sourceWarm
		}
		m.load.WithLabelValues(kind, e.Model(), e.Component, source).Observe(e.Took.Seconds())
		if m.held[at] {
			m.reload.WithLabelValues(kind, e.Model(), e.Component, source).Observe(e.Took.Seconds())
		}
		m.held[at] = true
	case residency.Keep:
		m.held[at] = true
	case residency.Reserve:
		if e.Class == residency.Found { // nobody waited
			m.held[at] = true
			return
		}
		m.wait.WithLabelValues(kind).Observe(e.Took.Seconds())
	case residency.Withdraw:
		m.wait.WithLabelValues(kind).Observe(e.Took.Seconds())
	}
}

// The ends of jobs that are no reason of an error.
const (
	endCompleted = "completed"
	endCancelled = "cancelled"
	endDeadline  = "deadline_exceeded"
)

// Ended counts a job that made so many images of a model, which is empty if none was found, and ended with err. Safe for
// concurrent use.
func (m *Metrics) Ended(model string, images int, took time.Duration, err error) {
	how := end(err)
	m.jobs.WithLabelValues(how).Inc()
	m.request.WithLabelValues(how).Observe(took.Seconds())
	if images > 0 {
		m.images.WithLabelValues(model).Add(float64(images))
	}
}

// end sorts an error as stagerpc.ToStatus does.
func end(err error) string {
	reason := stage.ReasonOf(err)
	switch {
	case err == nil:
		return endCompleted
	case reason != "":
		return strings.ToLower(string(reason))
	case errors.Is(err, context.Canceled):
		return endCancelled
	case errors.Is(err, context.DeadlineExceeded):
		return endDeadline
	}
	return strings.ToLower(string(stage.EngineFault))
}
