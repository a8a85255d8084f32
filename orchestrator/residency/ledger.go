package residency

import (
	"cmp"
	"fmt"
	"math"
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
	runs     int  // sum of the components'
	retry    bool // failed evictions may be tried again

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

// holds tells whether so many bytes fit into the empty device.
func (d *device) holds(bytes int64) bool { return d.BudgetBytes == 0 || bytes <= d.BudgetBytes }

// service is one stage at one address. It computes for one request at a time.
type service struct {
	id           StageID
	kind         stage.Kind
	device       *device
	budget       int64 // of the device, as this service says
	warm         int64 // bytes of evicted weights that the host may keep, as this service says
	models       []string
	generation   uint64 // of the runtime process, as far as known
	draining     bool
	silent       bool         // does not answer: see silenced
	components   []*component // by model
	holder       *request     // placed here, nil when free
	read, unstow pace         // of loads, from files and from the host's memory
	expected     expectation
}

// component is one model's part in a service.
type component struct {
	service  *service
	model    string
	state    State
	bytes    int64 // counted on the device; 0 when absent
	kept     int64 // bytes in the host's memory, see warm.go
	pending  bool  // evicting, and waits for room there
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

// used is what counts on a device: weights in any state but absent, and scratch of reserved requests.
func (l *ledger) used(d *device) int64 {
	var sum int64
	for c := range l.on(d) {
		sum += c.bytes
	}
	for _, r := range l.requests {
		if r.phase >= reserved && r.service.device == d {
			sum += r.need.Footprint.ScratchBytes
		}
	}
	return sum
}

// free is what placed requests have not yet been promised, once the evictions under way are done.
// It is negative when a stage joined with more than the budget allows, or other processes want what is held here.
func (l *ledger) free(d *device) int64 {
	if d.BudgetBytes == 0 {
		return math.MaxInt64 / 2
	}
	free := d.BudgetBytes - l.others(d) - l.used(d) + l.evicting(d)
	for _, r := range l.requests {
		if r.phase == placed && r.service.device == d {
			free -= r.service.missing(r.need)
		}
	}
	return free
}

// evicting is the bytes on their way back.
func (l *ledger) evicting(d *device) int64 {
	var sum int64
	for c := range l.on(d) {
		if c.state == Evicting {
			sum += c.bytes
		}
	}
	return sum
}

// missing is what is yet to be reserved to serve n at s.
func (s *service) missing(n Need) int64 {
	if c := s.present(n.Model); c != nil && c.suits(n) {
		return n.Footprint.ScratchBytes
	}
	return n.bytes()
}

// whole is all that is pinned while s serves n.
func (s *service) whole(n Need) int64 {
	if c := s.present(n.Model); c != nil && c.suits(n) {
		return c.bytes + n.Footprint.ScratchBytes
	}
	return n.bytes()
}

// present is a model's component that is resident or will be, nil if there is none.
func (s *service) present(model string) *component {
	if c := s.find(model); c != nil && (c.state == Loading || c.state == Resident) {
		return c
	}
	return nil
}

// suits tells whether n can be served by as much of its weights as c holds, be it more or less than n would load. What
// leaves no room for n's scratch has to be evicted, to be loaded within less.
func (c *component) suits(n Need) bool {
	return c.service.device.holds(c.bytes + n.Footprint.ScratchBytes)
}

// largest is the device with the largest budget of those that serve n, nil if there is none.
func (l *ledger) largest(n Need) (largest *device) {
	for _, s := range l.candidates(n) {
		if d := s.device; largest == nil || largest.BudgetBytes > 0 && (d.BudgetBytes == 0 || d.BudgetBytes > largest.BudgetBytes) {
			largest = d
		}
	}
	return largest
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

func (l *ledger) service(id StageID) *service {
	i := slices.IndexFunc(l.services, func(s *service) bool { return s.id == id })
	if i < 0 {
		return nil
	}
	return l.services[i]
}

func (l *ledger) request(id RequestID) *request {
	i := slices.IndexFunc(l.requests, func(r *request) bool { return r.request == id })
	if i < 0 {
		return nil
	}
	return l.requests[i]
}

func (l *ledger) job(id JobID) *job {
	i := slices.IndexFunc(l.jobs, func(j *job) bool { return j.id == id })
	if i < 0 {
		return nil
	}
	return l.jobs[i]
}

// busy is the component that a load or eviction is about, nil if that was given up.
func (l *ledger) busy(op opID, state State) *component {
	for _, s := range l.services {
		for _, c := range s.components {
			if c.op == op && c.state == state {
				return c
			}
		}
	}
	return nil
}

// find is the service's component of a model, nil if it never had it.
func (s *service) find(model string) *component {
	i, found := slices.BinarySearchFunc(s.components, model, (*component).compare)
	if !found {
		return nil
	}
	return s.components[i]
}

// component is find, or a new absent one.
func (s *service) component(model string) *component {
	i, found := slices.BinarySearchFunc(s.components, model, (*component).compare)
	if !found {
		s.components = slices.Insert(s.components, i, &component{service: s, model: model})
	}
	return s.components[i]
}

func (c *component) compare(model string) int { return cmp.Compare(c.model, model) }

// String names the component in reasons.
func (c *component) String() string { return fmt.Sprintf("%v %s", c.service.kind, c.model) }

// holder is the request that pins the component, nil if nobody does.
func (c *component) holder() *request {
	if r := c.service.holder; r != nil && r.need.Model == c.model {
		return r
	}
	return nil
}

// component is what the request pins, once placed.
func (r *request) component() *component { return r.service.component(r.need.Model) }

// event starts an event about a request that has no service yet.
func (r *request) event(a Action) Event {
	return Event{Action: a, Request: r.request, Job: r.job, Kind: r.need.Kind, Model: r.need.Model, Bytes: r.need.bytes()}
}

// record adds a decision about a component to the record, and returns it for what only some have:
// it is the caller's until the next decision.
func (l *ledger) record(a Action, c *component, by cause, bytes int64, reason string, args ...any) *Event {
	return l.note(Event{
		Action: a, Request: by.request, Job: by.job, Bytes: bytes,
		Stage: c.service.id, Kind: c.service.kind, Model: c.model,
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
