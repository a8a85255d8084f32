// Package top shows the news of WatchResidency: in a terminal as a view of devices, stages, jobs and
// the last decisions, elsewhere as a line for each decision.
//
// State, Model and their text are pure: news and keys go in, text comes out. Run alone knows a terminal.
//
// The package may import proto and the terminal libraries, which nothing else may.
package top

import (
	"cmp"
	"slices"
	"strings"
	"time"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// maxDecisions is how many of the last decisions are kept.
const maxDecisions = 100

// State is what follows from the news. Applying news gives a new one and leaves the old as it is.
type State struct {
	time       time.Time // of the last news
	dropped    int64
	devices    []device    // by name
	hosts      []host      // by name
	services   []service   // in pipeline order
	components []component // by service and name
	requests   []request   // by arrival
	jobs       []*triptychv1alpha1.JobProgress
	decisions  []*triptychv1alpha1.ResidencyDecision
}

type device struct {
	name               string
	used, budget, peak int64 // bytes
}

// host is one that may keep evicted weights in its memory.
type host struct {
	name   string
	budget int64 // bytes
}

type service struct{ address, stage, device string }

type component struct {
	service, name, state string
	bytes                int64
}

// request is one that waits for a stage, loads it or works there.
type request struct {
	id                              uint64
	job, stage, set, service, doing string // set are the components it needs
	since                           time.Time
}

// What a request does, and the states of components.
const (
	waits = "waits"
	loads = "loads"
	works = "works"

	loading     = "loading"
	prefetching = "prefetching"
	resident    = "resident"
	evicting    = "evicting"
	dropping    = "dropping"
	warm        = "warm"
)

// Apply is the state after news.
func (s State) Apply(news *triptychv1alpha1.WatchResidencyResponse) State {
	if n := news.GetSnapshot(); n != nil {
		return s.snapshot(n)
	}
	if d := news.GetDecision(); d != nil {
		return s.decision(d)
	}
	if j := news.GetJob(); j != nil {
		return s.job(j)
	}
	return s
}

// job follows how far a job is.
func (s State) job(j *triptychv1alpha1.JobProgress) State {
	same := func(o *triptychv1alpha1.JobProgress) bool { return o.GetJob() == j.GetJob() }
	if j.GetEnded() {
		s.jobs = drop(s.jobs, same)
	} else {
		s.jobs = put(s.jobs, j, same)
	}
	return s
}

// snapshot keeps the decisions that were seen, and how far jobs are, and takes all else from n.
func (s State) snapshot(n *triptychv1alpha1.ResidencySnapshot) State {
	out := State{time: n.GetTime().AsTime(), dropped: n.GetDroppedDecisions(), decisions: s.decisions, jobs: s.jobs}
	for _, d := range n.GetDevices() {
		out.devices = append(out.devices, device{d.GetDevice(), d.GetUsedBytes(), d.GetBudgetBytes(), d.GetPeakBytes()})
	}
	for _, h := range n.GetHosts() {
		out.hosts = append(out.hosts, host{h.GetHost(), h.GetBudgetBytes()})
	}
	granted := map[uint64]bool{}
	for _, v := range n.GetServices() {
		out.services = append(out.services, service{v.GetService(), v.GetStage(), v.GetDevice()})
		if id := v.GetRequest(); id != 0 {
			doing := loads
			if v.GetWorking() {
				doing = works
			}
			granted[id] = true
			out.requests = append(out.requests, request{id, v.GetJob(), v.GetStage(), set(v.GetModel(), v.GetComponents()...), v.GetService(), doing, out.time})
		}
	}
	for _, c := range n.GetComponents() {
		state := map[triptychv1alpha1.ComponentUse_State]string{
			triptychv1alpha1.ComponentUse_STATE_LOADING: loading, triptychv1alpha1.ComponentUse_STATE_RESIDENT: resident,
			triptychv1alpha1.ComponentUse_STATE_EVICTING: evicting, triptychv1alpha1.ComponentUse_STATE_WARM: warm,
		}[c.GetState()]
		bytes := c.GetWeightsBytes()
		switch {
		case state == warm:
			bytes = c.GetWarmBytes()
		case state == evicting && bytes == 0:
			state, bytes = dropping, c.GetWarmBytes()
		}
		out.components = append(out.components, component{c.GetService(), set(c.GetModel(), c.GetComponent()), state, bytes})
	}
	for _, w := range n.GetWaiting() {
		if !granted[w.GetRequest()] {
			out.requests = append(out.requests, request{w.GetRequest(), w.GetJob(), w.GetStage(), set(w.GetModel(), w.GetComponents()...), w.GetService(), waits, w.GetSince().AsTime()})
		}
	}
	out.sort()
	return out
}

// decision follows one decision. What it relies on is what the random test of the residency package
// checks the record for.
func (s State) decision(d *triptychv1alpha1.ResidencyDecision) State {
	e := d.GetEvent()
	s.time = e.GetTime().AsTime()
	s.decisions = append(slices.Clone(s.decisions), d)
	s.decisions = s.decisions[max(0, len(s.decisions)-maxDecisions):]
	if name := e.GetDevice(); name != "" {
		now := device{name, e.GetUsedBytes(), e.GetBudgetBytes(), e.GetUsedBytes()}
		same := func(o device) bool { return o.name == name }
		if i := slices.IndexFunc(s.devices, same); i >= 0 {
			now.peak = max(now.peak, s.devices[i].peak)
		}
		s.devices = put(s.devices, now, same)
		if id := d.GetService(); id != "" {
			s.services = put(s.services, service{id, e.GetStage(), name}, func(o service) bool { return o.address == id })
		}
	}
	s.components = s.weights(d)
	s.requests = s.turn(d)
	s.sort()
	return s
}

// weights are the components after a decision.
func (s State) weights(d *triptychv1alpha1.ResidencyDecision) []component {
	e := d.GetEvent()
	name := set(e.GetModel(), e.GetComponent())
	same := func(c component) bool { return c.service == d.GetService() && c.name == name }
	become := func(state string) []component {
		now := component{d.GetService(), name, state, e.GetBytes()}
		if i := slices.IndexFunc(s.components, same); i >= 0 && e.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_FAILED {
			now.bytes = s.components[i].bytes // a failed eviction moves none
		}
		return put(s.components, now, same)
	}
	switch e.GetAction() {
	case triptychv1alpha1.ResidencyEvent_ACTION_RESERVE:
		if e.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_FOUND {
			return become(resident)
		}
	case triptychv1alpha1.ResidencyEvent_ACTION_LOAD:
		return become(loading)
	case triptychv1alpha1.ResidencyEvent_ACTION_PREFETCH:
		return become(prefetching)
	case triptychv1alpha1.ResidencyEvent_ACTION_LOADED:
		return become(resident)
	case triptychv1alpha1.ResidencyEvent_ACTION_EVICT:
		if e.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_FAILED {
			return become(resident)
		}
		return become(evicting)
	case triptychv1alpha1.ResidencyEvent_ACTION_KEEP:
		return put(s.components, component{d.GetService(), name, warm, e.GetBytes()}, same)
	case triptychv1alpha1.ResidencyEvent_ACTION_DROP:
		return become(dropping)
	case triptychv1alpha1.ResidencyEvent_ACTION_RELEASE:
		if c := e.GetClass(); c == triptychv1alpha1.ResidencyEvent_CLASS_EVICTED || c == triptychv1alpha1.ResidencyEvent_CLASS_FAILED {
			return drop(s.components, same)
		}
	case triptychv1alpha1.ResidencyEvent_ACTION_LOST:
		return drop(s.components, same)
	}
	return s.components
}

// turn is the requests after a decision.
func (s State) turn(d *triptychv1alpha1.ResidencyDecision) []request {
	e, id := d.GetEvent(), d.GetRequest()
	if id == 0 {
		return s.requests
	}
	same := func(r request) bool { return r.id == id }
	become := func(doing string) []request {
		return put(s.requests, request{id, d.GetJob(), e.GetStage(), subject(e), d.GetService(), doing, s.time}, same)
	}
	switch e.GetAction() {
	case triptychv1alpha1.ResidencyEvent_ACTION_WAIT:
		return become(waits)
	case triptychv1alpha1.ResidencyEvent_ACTION_RESERVE:
		return become(loads)
	case triptychv1alpha1.ResidencyEvent_ACTION_GRANT:
		return become(works)
	case triptychv1alpha1.ResidencyEvent_ACTION_WITHDRAW, triptychv1alpha1.ResidencyEvent_ACTION_REFUSE, triptychv1alpha1.ResidencyEvent_ACTION_LOST:
		return drop(s.requests, same) // one that loses what it loaded tells again that it waits
	case triptychv1alpha1.ResidencyEvent_ACTION_RELEASE:
		if e.GetClass() != triptychv1alpha1.ResidencyEvent_CLASS_EVICTED { // which it caused
			return drop(s.requests, same)
		}
	}
	return s.requests
}

func (s *State) sort() {
	slices.SortFunc(s.devices, func(a, b device) int { return cmp.Compare(a.name, b.name) })
	order := func(v service) int {
		kind, _ := stage.ParseKind(v.stage)
		return int(kind)
	}
	slices.SortFunc(s.services, func(a, b service) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.address, b.address))
	})
	slices.SortFunc(s.components, func(a, b component) int {
		return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.name, b.name))
	})
	slices.SortFunc(s.requests, func(a, b request) int { return cmp.Compare(a.id, b.id) })
}

// set names components that are held together, or the model where they have no names, as with servers of before.
func set(model string, components ...string) string {
	return cmp.Or(strings.Join(components, "+"), model)
}

// subject is what a decision is about.
func subject(e *triptychv1alpha1.ResidencyEvent) string {
	return cmp.Or(set("", e.GetComponents()...), e.GetComponent(), e.GetModel())
}

// put is all with v in the place of the one that is the same, or at the end.
func put[T any](all []T, v T, same func(T) bool) []T {
	all = slices.Clone(all)
	if i := slices.IndexFunc(all, same); i >= 0 {
		all[i] = v
		return all
	}
	return append(all, v)
}

// drop is all without the one that is the same.
func drop[T any](all []T, same func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(all), same)
}
