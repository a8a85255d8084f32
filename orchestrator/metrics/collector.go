package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/orchestrator/scale"
	"github.com/triptych-serving/triptych/stage"
)

// collector tells what there is at the time of a scrape. It keeps nothing.
type collector struct{ Sources }

var (
	reserved = prometheus.NewDesc("triptych_reserved_bytes",
		"Bytes reserved on a device, by kind of stage, model, component and state: weights that are loading, resident or evicting, and scratch, with the component that does the work. Their sum is triptych_used_bytes.",
		[]string{"device", "kind", "model", "component", "state"}, nil)
	used = prometheus.NewDesc("triptych_used_bytes",
		"Bytes reserved on a device.", []string{"device"}, nil)
	peak = prometheus.NewDesc("triptych_peak_bytes",
		"The most bytes ever reserved at once on a device.", []string{"device"}, nil)
	foreign = prometheus.NewDesc("triptych_foreign_bytes",
		"Bytes held on a device by processes that work for other orchestrators.", []string{"device"}, nil)
	budget = prometheus.NewDesc("triptych_budget_bytes",
		"Bytes that may be reserved on a device. Absent where there is no limit.", []string{"device"}, nil)
	warm = prometheus.NewDesc("triptych_warm_bytes",
		"Bytes of evicted weights that a host's memory keeps, by kind of stage, model and component.", []string{"host", "kind", "model", "component"}, nil)
	warmBudget = prometheus.NewDesc("triptych_warm_budget_bytes",
		"Bytes of evicted weights that a host's memory may keep. Absent where it keeps none.", []string{"host"}, nil)
	waiting = prometheus.NewDesc("triptych_waiting_requests",
		"Requests that have no stage yet, by the kind they wait for. Those whose weights load are included.", []string{"kind"}, nil)
	up = prometheus.NewDesc("triptych_stage_up",
		"1 if the service of a stage gets work, 0 if it is gone, silent, draining or another orchestrator's.", []string{"kind", "service"}, nil)
	replicas = prometheus.NewDesc("triptych_replicas",
		"Services of a kind of stage that get work.", []string{"kind"}, nil)
	restarts = prometheus.NewDesc("triptych_runtime_restarts_total",
		"Runtime processes that ended and were started again by their service, by kind of stage.", []string{"kind"}, nil)
	backlogRequests = prometheus.NewDesc("triptych_backlog_requests",
		"Turns of requests that are not at work yet, by the kind of stage they need and model: those that wait for one, that jobs will ask for later, "+
			"and that cannot be planned since no service of the kind is there. model is empty while it is not known.", []string{"kind", "model"}, nil)
	backlogSeconds = prometheus.NewDesc("triptych_backlog_seconds",
		"Seconds that one replica is expected to take for all of triptych_backlog_requests and the rest of what is at work: computing, as measured, and loading of what no replica holds.",
		[]string{"kind", "model"}, nil)
	owns = prometheus.NewDesc("triptych_owner",
		"1 if the orchestrator owns the stages, 0 if another one does, or nobody as far as it sees.", nil, nil)
	dropped = prometheus.NewDesc("triptych_dropped_decisions_total",
		"Decisions that came too fast to be counted in the other metrics and logged.", nil, nil)
)

// scratch is the state of bytes that are no weights.
const scratch = "scratch"

// Describe implements prometheus.Collector.
func (collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{reserved, used, peak, foreign, budget, warm, warmBudget, waiting, up, replicas, restarts, backlogRequests, backlogSeconds, owns, dropped} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	s := c.Snapshot()
	gauge := func(d *prometheus.Desc, value int64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	for _, d := range s.Devices {
		gauge(used, d.UsedBytes, d.Key())
		gauge(peak, d.PeakBytes, d.Key())
		gauge(foreign, d.ForeignBytes, d.Key())
		if d.BudgetBytes > 0 {
			gauge(budget, d.BudgetBytes, d.Key())
		}
	}
	onDevice, kept := held(s)
	for labels, bytes := range onDevice {
		gauge(reserved, bytes, labels[:]...)
	}
	for _, h := range s.Hosts {
		gauge(warmBudget, h.BudgetBytes, h.Host)
	}
	for labels, bytes := range kept {
		gauge(warm, bytes, labels[:]...)
	}
	lines := map[stage.Kind]int64{}
	for _, w := range s.Waiting {
		lines[w.Need.Kind]++
	}
	for _, kind := range stage.Kinds() {
		gauge(waiting, lines[kind], kind.String())
	}
	working := map[stage.Kind]int64{}
	for _, v := range c.Services() {
		if v.Name {
			continue
		}
		value := int64(0)
		if v.Problem == "" {
			value = 1
		}
		working[v.Kind] += value
		gauge(up, value, v.Kind.String(), v.Address)
	}
	for _, kind := range stage.Kinds() {
		gauge(replicas, working[kind], kind.String())
		to <- prometheus.MustNewConstMetric(restarts, prometheus.CounterValue, float64(s.Restarts[kind]), kind.String())
	}
	for labels, sum := range c.waiting() {
		to <- prometheus.MustNewConstMetric(backlogRequests, prometheus.GaugeValue, float64(sum.Requests), labels.kind.String(), labels.model)
		to <- prometheus.MustNewConstMetric(backlogSeconds, prometheus.GaugeValue, sum.Seconds, labels.kind.String(), labels.model)
	}
	value := int64(0)
	if c.Owner() {
		value = 1
	}
	gauge(owns, value)
	to <- prometheus.MustNewConstMetric(dropped, prometheus.CounterValue, float64(s.DroppedEvents))
}

// line is who waits for a kind of stage with a model.
type line struct {
	kind  stage.Kind
	model string
}

// waiting is the backlog, with an entry for each kind and known model, and one for no known model.
func (c collector) waiting() map[line]scale.Sum {
	out := map[line]scale.Sum{}
	for _, kind := range stage.Kinds() {
		out[line{kind, ""}] = scale.Sum{}
	}
	for _, m := range c.Models() {
		for _, part := range m.Components {
			out[line{part.Kind, m.Name}] = scale.Sum{}
		}
	}
	for _, sum := range c.Backlog().Sums() {
		out[line{sum.Kind, sum.Model}] = sum
	}
	return out
}

// held adds up bytes of devices by device, kind, model, component and state, and warm ones by host, kind, model and component: replicas
// in one place are one.
func held(s residency.Snapshot) (onDevice map[[5]string]int64, kept map[[4]string]int64) {
	at := map[residency.StageID]residency.StageUse{}
	onDevice, kept = map[[5]string]int64{}, map[[4]string]int64{}
	for _, v := range s.Stages {
		at[v.Stage] = v
		if v.ScratchBytes > 0 {
			component := v.Components[0]
			onDevice[[5]string{v.Device, v.Kind.String(), stage.ModelOf(component), component, scratch}] += v.ScratchBytes
		}
	}
	for _, c := range s.Components {
		v, kind, model := at[c.Stage], c.Kind.String(), stage.ModelOf(c.Component)
		if c.WeightsBytes > 0 {
			onDevice[[5]string{v.Device, kind, model, c.Component, c.State.String()}] += c.WeightsBytes
		}
		if c.WarmBytes > 0 {
			kept[[4]string{v.Host, kind, model, c.Component}] += c.WarmBytes
		}
	}
	return onDevice, kept
}
