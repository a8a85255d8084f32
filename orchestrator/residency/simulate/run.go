package simulate

import (
	"cmp"
	"container/heap"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// Policy is who is evicted, and whether anybody is.
type Policy struct {
	Name string
	residency.Policy
	residency.Rival
	// KeepAll refuses jobs whose stages do not fit beside all that was ever loaded, and evicts nothing.
	KeepAll bool
	// Foretold announces all jobs before the first arrives.
	Foretold bool
}

// Options are the machine. Loads and evictions do not slow each other or the stages that compute.
type Options struct {
	BudgetBytes        int64   // of the device that all stages share; 0 is no limit
	LoadBytesPerSecond float64 // from storage to ready weights
	EvictSeconds       float64
	// WarmBytes is host memory for weights that are evicted, which are then resident again at no cost; 0 is none.
	WarmBytes int64
	// Parts names, for components that are equal to another one, the one that serves both, which is in the trace.
	Parts map[string]string
}

// Result is how a policy did.
type Result struct {
	Policy         string         `json:"policy"`
	Loads          int            `json:"loads"`     // begun, but for warm weights
	LoadsOf        map[string]int `json:"-"`         // the same, of each component that was ever loaded
	FromWarm       int            `json:"from_warm"` // loads of warm weights
	FromWarmOf     map[string]int `json:"-"`
	ReloadSeconds  float64        `json:"reload_seconds"`  // of loads, first ones and given-up ones included
	WaitingSeconds float64        `json:"waiting_seconds"` // of turns whose bytes were reserved, for their weights
	P50Seconds     float64        `json:"p50_seconds"`     // of jobs done, from arrival to the last image
	P95Seconds     float64        `json:"p95_seconds"`
	P99Seconds     float64        `json:"p99_seconds"`
	Done           int            `json:"done"`
	Refused        int            `json:"refused"`
	// Violations are decisions to take bytes, told by events, after which the bytes of all events before
	// sum up to more than the budget.
	Violations int   `json:"violations"`
	PeakBytes  int64 `json:"peak_bytes"` // by the same sum
	Uses       []Use `json:"-"`          // what was pinned at each grant, one after another
}

// Run replays a trace. The same arguments give the same result. It fails if a job neither ends nor is
// refused, which is a fault of the policy.
func Run(t Trace, p Policy, o Options) (Result, error) {
	s := &simulation{
		trace: t, policy: p, options: o, machine: residency.NewMachine(p.Policy, p.Rival), result: Result{Policy: p.Name, LoadsOf: map[string]int{}, FromWarmOf: map[string]int{}},
		turns: map[residency.RequestID]*turn{}, scratch: map[stage.Kind]int64{}, loads: map[uint64]*loading{}, bits: t.bits(), now: time.Unix(0, 0).UTC(),
	}
	names := map[string][]string{} // by stage
	for _, c := range t.Components() {
		names[c.Stage] = append(names[c.Stage], c.Name)
		s.bytes = append(s.bytes, c.LeastBytes)
	}
	device := residency.Device{Host: "simulated", Name: "device", BudgetBytes: o.BudgetBytes}
	for _, k := range stage.Kinds() {
		s.heed(s.machine.Join(s.now, residency.StageID(k.String()), k, device, names[k.String()], o.WarmBytes))
	}
	if p.Foretold {
		for i := range t.Jobs {
			if j := s.job(i); s.fits(j) {
				s.heed(s.machine.Announce(s.now, j.id, j.needs))
			}
		}
	}
	for i, j := range t.Jobs {
		s.after(seconds(j.AtSeconds), func() { s.arrive(i) })
	}
	for len(s.queue) > 0 {
		next := heap.Pop(&s.queue).(*event)
		if !next.dropped {
			s.now = next.at
			next.do()
		}
	}
	return s.finish()
}

// simulation is a run under way.
type simulation struct {
	trace   Trace
	policy  Policy
	options Options
	machine *residency.Machine
	now     time.Time
	queue   queue
	events  int // ever queued
	result  Result

	requests residency.RequestID
	turns    map[residency.RequestID]*turn // asked for and not ended
	loads    map[uint64]*loading           // under way
	reload   time.Duration                 // spent on loads
	waited   time.Duration                 // of turns, for loads
	used     int64                         // bytes, by events
	kept     uint64                        // components that KeepAll has let in
	scratch  map[stage.Kind]int64          // the most of those it let in
	latency  []time.Duration

	tick    *event            // what wake asked for, nil if nothing
	bits    map[string]uint64 // by component
	bytes   []int64           // of each, the least that is kept
	granted []*turn           // at work
}

// job is a job under way. Like the pipeline's, it takes every step as soon as it can begin.
type job struct {
	Job
	id      residency.JobID
	turns   []*turn
	needs   []residency.Need // all that it will ask for, as they are announced
	ended   int              // turns
	refused bool
}

func seconds(x float64) time.Duration { return time.Duration(x * float64(time.Second)) }

// LoadTime is how long the load of so many bytes takes.
func (o Options) LoadTime(bytes int64) time.Duration {
	return seconds(float64(bytes) / o.LoadBytesPerSecond)
}

// turn is one stage's work for a job.
type turn struct {
	step
	job          *job
	need         residency.Need
	seconds      float64 // of computing
	asked, ended bool
	reserved     time.Time // when its bytes were its own
}

// job makes the i-th job of the trace.
func (s *simulation) job(i int) *job {
	spec := s.trace.Jobs[i]
	j := &job{Job: spec, id: residency.JobID(fmt.Sprint(i))}
	turns := s.trace.Turns(spec)
	steps := stepsOf(turns)
	for i, t := range turns {
		need, f := residency.Need{Kind: t.kind()}, stage.Footprint{ScratchBytes: t.ScratchBytes}
		for _, w := range t.set() {
			name := cmp.Or(s.options.Parts[w.Name], w.Name)
			need.Components = append(need.Components, name)
			f.Weights = append(f.Weights, stage.Weights{Component: name, Bytes: w.Bytes, WholeBytes: w.Bytes})
		}
		need.Footprints = map[string]stage.Footprint{"": f}
		j.turns = append(j.turns, &turn{step: steps[i], job: j, need: need, seconds: t.Seconds})
	}
	for _, i := range ending(steps) {
		j.needs = append(j.needs, j.turns[i].need)
	}
	return j
}

func (s *simulation) arrive(i int) {
	j := s.job(i)
	if !s.fits(j) {
		s.result.Refused++
		return
	}
	if !s.policy.Foretold {
		s.heed(s.machine.Announce(s.now, j.id, j.needs))
	}
	s.ask(j)
}

// fits tells whether a job is let in: one that could never be served is not, like in production, nor with
// KeepAll one that does not fit beside all that was let in before, each stage with the most scratch it was
// asked for.
func (s *simulation) fits(j *job) bool {
	budget := s.options.BudgetBytes
	if budget == 0 {
		return true
	}
	scratch, kept, sum := maps.Clone(s.scratch), s.kept, int64(0)
	for _, n := range j.needs {
		f := n.Footprints[""]
		if f.WeightsBytes()+f.ScratchBytes > budget {
			return false
		}
		scratch[n.Kind] = max(scratch[n.Kind], f.ScratchBytes)
		kept |= s.bit(n)
	}
	for _, bytes := range scratch {
		sum += bytes
	}
	if s.policy.KeepAll {
		for i, bytes := range s.bytes {
			sum += bytes * int64(kept>>i&1)
		}
		if sum > budget {
			return false
		}
		s.kept, s.scratch = kept, scratch
	}
	return true
}

// ask asks for all turns of a job that can begin.
func (s *simulation) ask(j *job) {
	for _, t := range j.turns {
		if j.refused || t.asked || slices.ContainsFunc(t.after, func(i int) bool { return !j.turns[i].ended }) {
			continue
		}
		t.asked = true
		s.requests++
		s.turns[s.requests] = t
		s.heed(s.machine.Acquire(s.now, s.requests, j.id, t.need))
	}
}

// heed does what was decided.
func (s *simulation) heed(d residency.Decision) {
	for _, e := range d.Events {
		s.count(e)
	}
	for _, w := range d.Works {
		s.work(w)
	}
	for _, id := range d.Granted {
		t := s.turns[id]
		s.waited += s.now.Sub(t.reserved)
		s.granted = append(s.granted, t)
		s.result.Uses = append(s.result.Uses, s.pinned())
		s.after(seconds(t.seconds), func() { s.release(id) })
	}
	s.wake()
	for _, id := range d.Refused {
		j := s.turns[id].job
		delete(s.turns, id)
		if !j.refused {
			j.refused = true
			s.result.Refused++
			s.heed(s.machine.Forget(s.now, j.id))
		}
	}
}

// wake keeps the appointment that the ledger has asked for last.
func (s *simulation) wake() {
	if s.tick != nil {
		s.tick.dropped = true
		s.tick = nil
	}
	if at := s.machine.Wake(); !at.IsZero() {
		s.tick = s.after(at.Sub(s.now), func() { s.heed(s.machine.Tick(s.now)) })
	}
}

func (s *simulation) release(id residency.RequestID) {
	t := s.turns[id]
	delete(s.turns, id)
	s.granted = slices.DeleteFunc(s.granted, func(g *turn) bool { return g == t })
	s.heed(s.machine.Release(s.now, id))
	t.ended = true
	if t.job.ended++; t.job.ended == len(t.job.turns) {
		s.heed(s.machine.Forget(s.now, t.job.id))
		s.latency = append(s.latency, s.now.Sub(time.Unix(0, 0))-seconds(t.job.AtSeconds))
	}
	s.ask(t.job)
}

// pinned is what those at work hold.
func (s *simulation) pinned() (u Use) {
	for _, t := range s.granted {
		u.Pinned |= s.bit(t.need)
		u.ScratchBytes += t.need.Footprints[""].ScratchBytes
	}
	return u
}

// bit is the set of a need.
func (s *simulation) bit(n residency.Need) (set uint64) {
	for _, name := range n.Components {
		set |= s.bits[name]
	}
	return set
}
