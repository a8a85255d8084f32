package residency

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// ledger is the whole state. All bytes are sums over it, so that none can leak or be counted twice.
// Every list has an order of its own, so that equal inputs give equal outputs.
type ledger struct {
	policy   Policy
	rival    Rival      // the zero value in production
	devices  []*device  // by key
	services []*service // by id
	requests []*request // by arrival; until refused, released or revoked
	jobs     []*job     // by first announcement
	lastOp   opID
	runs     int                  // sum of the components'
	restarts map[stage.Kind]int   // of runtime processes
	gone     map[stage.Kind]paces // of loads, at the services that have left
	retry    bool                 // failed evictions may be tried again

	// Of the present step:
	now     time.Time
	effects []effect
	events  []Event
	wake    time.Time // when something is to be decided even if nothing happens, zero if never
}

// device is memory that services share.
type device struct {
	Device
	share
	peak int64 // most bytes ever used at once
}

// service is one stage at one address. It computes for one request at a time.
type service struct {
	id                  StageID
	kind                stage.Kind
	device              *device
	planning            string
	line                *service // of those that may have each other's requests, the same for all, see relate
	budget              int64    // of the device, as this service says
	overhead            int64    // of its process, neither weights nor scratch
	warmBudget          int64    // bytes of warm weights that the host may have, as this service says
	names               []string // of components that it can load
	generation          uint64   // of the runtime process, as far as known
	draining            bool
	silent              bool         // does not answer: see silenced
	components          []*component // by name
	holder              *request     // placed here, nil when free
	fromFiles, fromWarm pace         // of loads, from files and from the host's memory
	expected            expectation
}

// component is one set of weights at a service.
type component struct {
	service  *service
	name     string
	state    State
	bytes    int64 // counted on the device; 0 when absent
	warm     int64 // bytes in the host's memory, see decide_warm.go
	pending  bool  // evicting, and waits for room there
	queued   bool  // loading, and waits until others of its set are loaded
	op       opID  // of the load or eviction under way
	prefetch bool  // loading, and nobody waits for it
	failed   bool  // the last load failed: not to be prefetched
	doubtful bool  // an eviction failed: to be loaded again before use
	lastUsed time.Time
	loaded   time.Time     // when it became resident
	spent    bool          // a request has used it since
	runs     int           // of jobs that came here
	visitor  JobID         // the last of them
	cause    cause         // of the eviction under way
	stale    string        // why what is held is not to be used again, empty if it may be
	staleFor cause         // who found out
	edition  stage.Edition // of what was loaded last, wherever it is by now
	since    time.Time     // of the load or eviction under way
}

// cause is on whose behalf a decision is made.
type cause struct {
	request RequestID
	job     JobID
}

// phase is how far a request is.
type phase uint8

const (
	waiting  phase = iota // no service yet
	placed                // has a service; evictions make room
	reserved              // its bytes are its own; weights load
	granted
)

// request is a need asked for.
type request struct {
	cause
	need       Need
	try        bool
	phase      phase
	service    *service // from placed on
	line       *service // of the services that it may have; nil while none is known
	told       []Class  // of Wait
	ahead      int      // position told last, -1 is none
	unfinished bool     // its work failed or was cut off
	retried    bool     // after the device was out of memory: waits for all evictions there
	losses     int      // services lost while it was loading
	refusals   int      // loads that other processes left no bytes for
	asked      time.Time

	overtaken, allowance int       // times
	since                time.Time // of the phase, where waiting and placed are one
}

// job is what is known of a job's future.
type job struct {
	id      JobID
	started bool   // has asked for something
	needs   []Need // turns not yet finished, in order, those at work included
	sets    []Need // that it has announced so far, each once, in order
	taken   int    // turns that are finished
}

// step takes up one input and returns what is to be done, and the record of what was decided.
func (l *ledger) step(now time.Time, in input) ([]effect, []Event) {
	l.now, l.effects, l.events, l.wake = now, nil, nil, time.Time{}
	_, failed := in.(evictFailed)
	l.retry = !failed
	in.apply(l)
	l.schedule()
	return l.effects, l.events
}

// on yields the components of a device, in order.
func (l *ledger) on(d *device) func(yield func(*component) bool) {
	return func(yield func(*component) bool) {
		for _, s := range l.services {
			if s.device != d {
				continue
			}
			for _, c := range s.components {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// process is the service's present one.
func (s *service) process() process { return process{s.id, s.generation} }

// one is the first that is asked for, nil if there is none.
func one[T any](of []*T, is func(*T) bool) *T {
	if i := slices.IndexFunc(of, is); i >= 0 {
		return of[i]
	}
	return nil
}

func (l *ledger) service(id StageID) *service {
	return one(l.services, func(s *service) bool { return s.id == id })
}

func (l *ledger) request(id RequestID) *request {
	return one(l.requests, func(r *request) bool { return r.request == id })
}

func (l *ledger) job(id JobID) *job { return one(l.jobs, func(j *job) bool { return j.id == id }) }

// busy is the component that a load or eviction is about, nil if that was given up.
func (l *ledger) busy(op opID, state State) *component {
	for _, s := range l.services {
		for _, c := range s.components {
			if c.op == op && c.state == state && !c.queued {
				return c
			}
		}
	}
	return nil
}

// find is a component of the service, nil if it never had it.
func (s *service) find(name string) *component {
	i, found := slices.BinarySearchFunc(s.components, name, (*component).compare)
	if !found {
		return nil
	}
	return s.components[i]
}

// component is find, or a new absent one.
func (s *service) component(name string) *component {
	i, found := slices.BinarySearchFunc(s.components, name, (*component).compare)
	if !found {
		s.components = slices.Insert(s.components, i, &component{service: s, name: name})
	}
	return s.components[i]
}

func (c *component) compare(name string) int { return cmp.Compare(c.name, name) }

// String names the component in reasons.
func (c *component) String() string { return fmt.Sprintf("%v %s", c.service.kind, c.name) }

// holder is the request that pins the component, nil if nobody does.
func (c *component) holder() *request {
	if r := c.service.holder; r != nil && r.need.has(c.name) {
		return r
	}
	return nil
}

// footprint is what the request takes, once placed.
func (r *request) footprint() stage.Footprint { return r.service.takes(r.need) }

// components yields what the request pins, once placed.
func (r *request) components(yield func(*component) bool) {
	for _, name := range r.need.Components {
		if !yield(r.service.component(name)) {
			return
		}
	}
}

// event starts an event about a request that has no service yet.
func (r *request) event(a Action) Event {
	return Event{Action: a, Request: r.request, Job: r.job, Kind: r.need.Kind, Component: r.need.first(), Components: r.need.Components, Bytes: r.need.LeastBytes()}
}

// about adds a decision about a placed request to the record, like record.
func (l *ledger) about(a Action, r *request, bytes int64, reason string, args ...any) *Event {
	e := r.event(a)
	e.Stage, e.Bytes = r.service.id, bytes
	return l.note(e, r.service.device, reason, args...)
}

// record adds a decision about a component to the record, and returns it for what only some have:
// it is the caller's until the next decision.
func (l *ledger) record(a Action, c *component, by cause, bytes int64, reason string, args ...any) *Event {
	return l.note(Event{
		Action: a, Request: by.request, Job: by.job, Bytes: bytes,
		Stage: c.service.id, Kind: c.service.kind, Component: c.name,
	}, c.service.device, reason, args...)
}

// note adds an event to the record; d may be nil.
func (l *ledger) note(e Event, d *device, reason string, args ...any) *Event {
	e.Time, e.Reason = l.now, fmt.Sprintf(reason, args...)
	if d != nil {
		e.Device, e.UsedBytes, e.BudgetBytes = d.Key(), l.used(d), d.BudgetBytes
	}
	l.events = append(l.events, e)
	return &l.events[len(l.events)-1]
}

// by asks for a step at t at the latest.
func (l *ledger) by(t time.Time) {
	if l.wake.IsZero() || t.Before(l.wake) {
		l.wake = t
	}
}

func (l *ledger) do(e effect) { l.effects = append(l.effects, e) }

func (l *ledger) nextOp() opID {
	l.lastOp++
	return l.lastOp
}

// share is what the services of a device tell of its other processes, which work for other orchestrators.
type share struct {
	foreign int64        // bytes that they hold
	wants   []stage.Want // bytes that they wait for, the oldest first
	crowded bool         // they hold more than that: nothing is reserved until it is told how much
}

// input is something that happened. The ledger takes it up with apply and then decides.
type input interface{ apply(*ledger) }

// news are inputs that come at once: nothing is decided in between.
type news []input

func (in news) apply(l *ledger) {
	for _, one := range in {
		one.apply(l)
	}
}

// opID tells loads and evictions apart, so that the results of given-up ones are recognised.
type opID uint64
