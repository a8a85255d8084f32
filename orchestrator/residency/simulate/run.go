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

// Options are the machine. Loads and evictions do not slow each other or the stages that compute.
type Options struct {
	BudgetBytes        int64   // of the device that all stages share; 0 is no limit
	LoadBytesPerSecond float64 // from storage to ready weights
	EvictSeconds       float64
	// WarmBytes is host memory for weights that are evicted, which are then resident again at no cost; 0 is none. The oracle
	// knows nothing of it, so that there is none with it.
	WarmBytes int64
	// Parts names, for parts of models that are equal to another model's, the model whose part serves both. That one is in
	// the trace, and its own part serves it.
	Parts map[Component]string
	// OracleWidth is how many sets of components the oracle keeps in view: the more, the slower and the
	// closer; see Result.OracleExact. 0 is 2000.
	OracleWidth int
}

// Result is how a policy did.
type Result struct {
	Policy        string            `json:"policy"`
	Loads         int               `json:"loads"`     // begun, but for warm weights
	LoadsOf       map[Component]int `json:"-"`         // the same, of each component that was ever loaded
	FromWarm      int               `json:"from_warm"` // loads of warm weights
	FromWarmOf    map[Component]int `json:"-"`
	ReloadSeconds float64           `json:"reload_seconds"` // of loads, first ones and given-up ones included
	// OracleSeconds is the least that any policy could have spent on loads to grant the same turns in the
	// same order and with the same overlaps, all known from the beginning; a lower bound of it if not exact.
	OracleSeconds  float64 `json:"oracle_seconds"`
	OracleExact    bool    `json:"oracle_exact"`
	WaitingSeconds float64 `json:"waiting_seconds"` // of turns whose bytes were reserved, for their weights
	P50Seconds     float64 `json:"p50_seconds"`     // of jobs done, from arrival to the last image
	P95Seconds     float64 `json:"p95_seconds"`
	P99Seconds     float64 `json:"p99_seconds"`
	Done           int     `json:"done"`
	Refused        int     `json:"refused"`
	// Violations are decisions to take bytes, told by events, after which the bytes of all events before
	// sum up to more than the budget.
	Violations int   `json:"violations"`
	PeakBytes  int64 `json:"peak_bytes"` // by the same sum
}

// Component is a model's part in a stage.
type Component struct {
	Kind  stage.Kind
	Model string
}

const oracleWidth = 2000

func (o Options) width() int { return cmp.Or(o.OracleWidth, oracleWidth) }

// Run replays a trace. The same arguments give the same result. It fails if a job neither ends nor is
// refused, which is a fault of the policy.
func Run(t Trace, p Policy, o Options) (Result, error) {
	s := &simulation{
		trace: t, policy: p, options: o, machine: residency.NewMachine(p.Policy, p.Rival), result: Result{Policy: p.Name, LoadsOf: map[Component]int{}, FromWarmOf: map[Component]int{}},
		turns: map[residency.RequestID]*turn{}, scratch: map[stage.Kind]int64{}, loads: map[uint64]*loading{}, bits: map[Component]uint64{}, now: time.Unix(0, 0).UTC(),
	}
	names := map[stage.Kind][]string{}
	for i, p := range t.parts() {
		names[p.Kind] = append(names[p.Kind], p.Model)
		s.bits[p.Component] = 1 << i
		s.caching.bytes = append(s.caching.bytes, p.least)
		s.caching.cost = append(s.caching.cost, o.loadTime(p.least))
		s.varies = s.varies || p.least < p.most
	}
	s.caching.budget = o.BudgetBytes
	device := residency.Device{Host: "simulated", Name: "device", BudgetBytes: o.BudgetBytes}
	for _, k := range stage.Kinds() {
		s.heed(s.machine.Join(s.now, residency.StageID(k.String()), k, device, names[k], o.WarmBytes))
	}
	if p.Foretold {
		for i := range t.Jobs {
			if j := s.job(i); s.fits(j) {
				s.heed(s.machine.Announce(s.now, j.id, j.needs()))
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

// Compare runs every policy.
func Compare(t Trace, o Options) ([]Result, error) {
	var out []Result
	for _, p := range Policies() {
		r, err := Run(t, p, o)
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w", p.Name, err)
		}
		out = append(out, r)
	}
	return out, nil
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

	tick    *event // what wake asked for, nil if nothing
	bits    map[Component]uint64
	varies  bool // a component is kept in more than one size; the oracle's is the least
	caching caching
	granted []*turn // at work
}

// turn is one stage's work for a job.
type turn struct {
	asking
	job *job
	// reserved is when its bytes were its own.
	reserved time.Time
	then     func()
}

// job is a job under way. Like the pipeline's, it decodes an image while the next one denoises.
type job struct {
	Job
	id       residency.JobID
	turns    map[stage.Kind][]asking // by image
	denoised int
	decoded  int
	refused  bool
}

func seconds(x float64) time.Duration { return time.Duration(x * float64(time.Second)) }

// loadTime is how long so many bytes take.
func (o Options) loadTime(bytes int64) time.Duration {
	return seconds(float64(bytes) / o.LoadBytesPerSecond)
}

// asking is a turn that is to come.
type asking struct {
	place   int // in the order of asking
	need    residency.Need
	seconds float64 // of computing
}

// job makes the i-th job of the trace.
func (s *simulation) job(i int) *job {
	spec := s.trace.Jobs[i]
	j := &job{Job: spec, id: residency.JobID(fmt.Sprint(i)), turns: map[stage.Kind][]asking{}}
	for place, t := range s.trace.turns(spec) {
		k := t.kind()
		need := residency.Need{Kind: k, Model: cmp.Or(s.options.Parts[Component{k, t.Model}], t.Model), Footprint: stage.Footprint{WeightsBytes: t.WeightsBytes, ScratchBytes: t.ScratchBytes}}
		j.turns[k] = append(j.turns[k], asking{place, need, t.Seconds})
	}
	return j
}

// images is how many a job makes.
func (j *job) images() int { return len(j.turns[stage.KindDecoder]) }

// needs are all that a job will ask for, as it is announced.
func (j *job) needs() []residency.Need {
	needs := []residency.Need{j.turns[stage.KindEncoder][0].need}
	for i := range j.images() {
		needs = append(needs, j.turns[stage.KindDenoiser][i].need, j.turns[stage.KindDecoder][i].need)
	}
	return needs
}

func (s *simulation) arrive(i int) {
	j := s.job(i)
	if !s.fits(j) {
		s.result.Refused++
		return
	}
	if !s.policy.Foretold {
		s.heed(s.machine.Announce(s.now, j.id, j.needs()))
	}
	s.ask(j, j.turns[stage.KindEncoder][0], func() { s.denoise(j) })
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
	for _, n := range j.needs() {
		if n.Footprint.WeightsBytes+n.Footprint.ScratchBytes > budget {
			return false
		}
		scratch[n.Kind] = max(scratch[n.Kind], n.Footprint.ScratchBytes)
		kept |= s.bit(n)
	}
	for _, bytes := range scratch {
		sum += bytes
	}
	if s.policy.KeepAll {
		if s.caching.size(kept)+sum > budget {
			return false
		}
		s.kept, s.scratch = kept, scratch
	}
	return true
}

// denoise has the next image made, and the one after.
func (s *simulation) denoise(j *job) {
	denoise, decode := j.turns[stage.KindDenoiser], j.turns[stage.KindDecoder]
	i := j.denoised
	s.ask(j, denoise[i], func() {
		j.denoised++
		more := j.denoised < j.images()
		ahead := more && denoise[i+1].place < decode[i].place
		if ahead {
			s.denoise(j)
		}
		s.ask(j, decode[i], func() {
			if j.decoded++; j.decoded == j.images() {
				s.heed(s.machine.Forget(s.now, j.id))
				s.latency = append(s.latency, s.now.Sub(time.Unix(0, 0))-seconds(j.AtSeconds))
			}
		})
		if more && !ahead {
			s.denoise(j)
		}
	})
}

// ask asks for a turn; then follows its end.
func (s *simulation) ask(j *job, a asking, then func()) {
	if j.refused {
		return
	}
	s.requests++
	s.turns[s.requests] = &turn{asking: a, job: j, then: then}
	s.heed(s.machine.Acquire(s.now, s.requests, j.id, a.need))
}

// kindOf is the kind of a stage, of which there is one of each.
func kindOf(id residency.StageID) stage.Kind {
	k, _ := stage.ParseKind(string(id))
	return k
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
		s.caching.uses = append(s.caching.uses, s.pinned())
		s.after(seconds(t.seconds), func() { s.release(id) })
	}
	s.wake()
	for _, r := range d.Refused {
		j := s.turns[r.Request].job
		delete(s.turns, r.Request)
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
	t.then()
}

// pinned is what those at work hold.
func (s *simulation) pinned() (u use) {
	for _, t := range s.granted {
		u.pinned |= s.bit(t.need)
		u.scratch += t.need.Footprint.ScratchBytes
	}
	return u
}

// bit is that of a component in sets of them.
func (s *simulation) bit(n residency.Need) uint64 { return s.bits[Component{n.Kind, n.Model}] }
