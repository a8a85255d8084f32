// Package timeline turns the news of WatchResidency into a timeline in Chrome's trace-event format,
// which Perfetto (https://ui.perfetto.dev) opens.
//
// A device is a process of the trace and a service a thread of it, with a slice for every load,
// prefetch, eviction, drop of what the host kept, and compute. A compute lasts from the grant of a stage to the release of its
// scratch, so that the way of its tensors to and from the service is included. Requests that wait are
// on threads of their own. Slices of one thread never overlap: what does gets another thread of the
// same name. Used bytes and budget of a device are counters.
//
// The package may import proto; it has no clock and does no I/O but to the writer it is given.
package timeline

import (
	"cmp"
	"strings"
	"time"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// The categories of slices.
const (
	Load     = "load"
	Prefetch = "prefetch"
	Evict    = "evict"
	Drop     = "drop"
	Compute  = "compute"
	Wait     = "wait"
)

// Timeline is what was seen. The zero value has seen nothing.
type Timeline struct {
	start, last time.Time // of the news
	dropped     int64
	tracks      tracks
	devices     map[string]string // of services
	events      []event           // that are complete, but for names of tracks

	weights  map[place]*slice
	computes map[string]*slice // by service
	waits    map[uint64]*slice // by request
	counters map[counter]int64
}

// place is a component in a service.
type place struct{ service, component string }

// counter is a counter track of a device.
type counter struct{ device, name string }

// Add takes up news, in the order they came.
func (t *Timeline) Add(news *triptychv1alpha1.WatchResidencyResponse) {
	if s := news.GetSnapshot(); s != nil {
		t.snapshot(s)
	}
	if d := news.GetDecision(); d != nil && !t.start.IsZero() {
		t.decision(d)
	}
}

// Slices is how many slices there are, those that have not ended included.
func (t *Timeline) Slices() int {
	n := len(t.weights) + len(t.computes) + len(t.waits)
	for _, e := range t.events {
		if e.Phase == phaseSlice {
			n++
		}
	}
	return n
}

// snapshot begins, or begins again after decisions were lost: what was open ends, and what is under
// way opens.
func (t *Timeline) snapshot(s *triptychv1alpha1.ResidencySnapshot) {
	now := s.GetTime().AsTime()
	if t.start.IsZero() {
		t.start = now
	} else {
		t.closeAll(now, "what came next was lost")
		t.instant(now, "", "", "decisions were lost", map[string]any{"decisions": s.GetDroppedDecisions() - t.dropped})
	}
	t.last, t.dropped = now, s.GetDroppedDecisions()
	t.devices = map[string]string{}
	t.weights, t.computes, t.waits, t.counters = map[place]*slice{}, map[string]*slice{}, map[uint64]*slice{}, map[counter]int64{}
	for _, d := range s.GetDevices() {
		t.count(now, d.GetDevice(), d.GetUsedBytes(), d.GetBudgetBytes())
	}
	stages, loading := map[string]string{}, map[uint64]bool{}
	for _, v := range s.GetServices() {
		t.devices[v.GetService()], stages[v.GetService()] = v.GetDevice(), v.GetStage()
		t.tracks.name(v.GetDevice(), v.GetStage(), v.GetService())
		switch {
		case v.GetWorking():
			t.computes[v.GetService()] = t.open(now, t.service(v.GetStage(), v.GetService()), Compute, set(v.GetModel(), v.GetComponents()...),
				map[string]any{"job": v.GetJob(), "request": v.GetRequest(), "began": "before the trace"})
		case v.GetRequest() != 0:
			loading[v.GetRequest()] = true
		}
	}
	for _, c := range s.GetComponents() {
		kind := map[triptychv1alpha1.ComponentUse_State]string{
			triptychv1alpha1.ComponentUse_STATE_LOADING: Load, triptychv1alpha1.ComponentUse_STATE_EVICTING: Evict,
		}[c.GetState()]
		if kind != "" {
			at := place{c.GetService(), set(c.GetModel(), c.GetComponent())}
			t.weights[at] = t.open(now, t.service(stages[c.GetService()], c.GetService()), kind, at.component,
				map[string]any{"bytes": c.GetWeightsBytes(), "began": "before the trace"})
		}
	}
	for _, w := range s.GetWaiting() {
		if !loading[w.GetRequest()] {
			t.waits[w.GetRequest()] = t.open(now, t.line(t.devices[w.GetService()], w.GetStage()), Wait, set(w.GetModel(), w.GetComponents()...),
				map[string]any{"job": w.GetJob(), "request": w.GetRequest(), "bytes": w.GetBytes(), "began": "before the trace"})
		}
	}
}

// decision opens and closes slices. What it relies on is what the random test of the residency package
// checks the record for.
func (t *Timeline) decision(d *triptychv1alpha1.ResidencyDecision) {
	e := d.GetEvent()
	now := e.GetTime().AsTime()
	t.last = now
	at := place{d.GetService(), set(e.GetModel(), e.GetComponent())}
	if device := e.GetDevice(); device != "" {
		t.count(now, device, e.GetUsedBytes(), e.GetBudgetBytes())
		if d.GetService() != "" {
			t.devices[d.GetService()] = device
		}
	}
	weights := func(kind string) {
		t.closeWeights(now, at, "overtaken")
		t.weights[at] = t.open(now, t.service(e.GetStage(), d.GetService()), kind, at.component, args(d))
	}
	failed := e.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_FAILED
	switch e.GetAction() {
	case triptychv1alpha1.ResidencyEvent_ACTION_LOAD:
		weights(Load)
	case triptychv1alpha1.ResidencyEvent_ACTION_PREFETCH:
		weights(Prefetch)
	case triptychv1alpha1.ResidencyEvent_ACTION_LOADED:
		t.closeWeights(now, at, "")
	case triptychv1alpha1.ResidencyEvent_ACTION_EVICT:
		if failed {
			t.closeWeights(now, at, e.GetReason())
			return
		}
		weights(Evict)
		if e.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_FOR_REQUEST && t.waits[d.GetRequest()] == nil {
			t.wait(now, d) // for the room that this makes
		}
	case triptychv1alpha1.ResidencyEvent_ACTION_DROP:
		weights(Drop)
	case triptychv1alpha1.ResidencyEvent_ACTION_KEEP:
		if failed {
			t.closeWeights(now, at, e.GetReason())
		}
	case triptychv1alpha1.ResidencyEvent_ACTION_WAIT:
		if t.waits[d.GetRequest()] == nil {
			t.wait(now, d)
		}
	case triptychv1alpha1.ResidencyEvent_ACTION_RESERVE, triptychv1alpha1.ResidencyEvent_ACTION_WITHDRAW:
		t.closeWait(now, d.GetRequest(), "")
	case triptychv1alpha1.ResidencyEvent_ACTION_REFUSE:
		t.closeWait(now, d.GetRequest(), e.GetReason())
		t.instant(now, e.GetDevice(), "", "refuse "+subject(e), args(d))
	case triptychv1alpha1.ResidencyEvent_ACTION_GRANT:
		t.closeCompute(now, d.GetService(), "overtaken")
		t.computes[d.GetService()] = t.open(now, t.service(e.GetStage(), d.GetService()), Compute, subject(e), args(d))
	case triptychv1alpha1.ResidencyEvent_ACTION_LOST:
		t.closeWeights(now, at, e.GetReason())
		if c := t.computes[d.GetService()]; c != nil && c.args["request"] == d.GetRequest() {
			t.closeCompute(now, d.GetService(), e.GetReason())
		}
		t.instant(now, e.GetDevice(), d.GetService(), "lost "+at.component, args(d))
	case triptychv1alpha1.ResidencyEvent_ACTION_RELEASE:
		switch {
		case failed:
			t.closeWeights(now, at, e.GetReason())
		case e.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_EVICTED:
			t.closeWeights(now, at, "")
		case e.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_WORK_DONE:
			t.closeCompute(now, d.GetService(), "")
		}
	}
}

// args are what a slice tells when it is looked at.
func args(d *triptychv1alpha1.ResidencyDecision) map[string]any {
	out := map[string]any{"bytes": d.GetEvent().GetBytes(), "reason": d.GetEvent().GetReason()}
	if d.GetJob() != "" {
		out["job"] = d.GetJob()
	}
	if d.GetRequest() != 0 {
		out["request"] = d.GetRequest()
	}
	return out
}

func (t *Timeline) wait(now time.Time, d *triptychv1alpha1.ResidencyDecision) {
	e, a := d.GetEvent(), args(d)
	kind, what := e.GetStage(), subject(e)
	if e.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_EVICT { // it tells of the victim
		kind, what, a = "room", "", map[string]any{"job": d.GetJob(), "request": d.GetRequest(), "reason": e.GetReason()}
	}
	t.waits[d.GetRequest()] = t.open(now, t.line(cmp.Or(e.GetDevice(), t.devices[d.GetService()]), kind), Wait, what, a)
}

// set names components that are held together, or the model where they have no names, as in recordings of before.
func set(model string, components ...string) string {
	return cmp.Or(strings.Join(components, "+"), model)
}

// subject is what a decision is about.
func subject(e *triptychv1alpha1.ResidencyEvent) string {
	return cmp.Or(set("", e.GetComponents()...), e.GetComponent(), e.GetModel())
}
