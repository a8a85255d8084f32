package residency

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// step takes one input to the ledger, checks the laws, and returns the transcript.
func (m *checked) step(in input) string {
	m.t.Helper()
	before := map[*device]int64{}
	for _, d := range m.devices {
		before[d] = m.ledger.used(d)
	}
	var kept int64 // of the one host
	for _, h := range m.hosts() {
		kept = h.UsedBytes
	}
	phases := map[*request]phase{}
	for _, r := range m.requests {
		phases[r] = r.phase
	}
	m.now = m.now.Add(m.pause)
	if in, ok := in.(asked); ok {
		m.asks(in)
	}
	effects, events := m.ledger.step(m.now, in)
	out := transcript(effects, events)
	fail := func(format string, args ...any) {
		m.t.Helper()
		m.t.Fatalf("%s\nin %s, after %T%+v:\n%s%s", fmt.Sprintf(format, args...), m.name, in, in, out, describe(&m.ledger))
	}

	m.checkRecord(events, fail)
	m.checkWorks(in, effects, fail)
	_, join := in.(joined)
	if _, ok := in.(holds); ok {
		join = true // what is there is there
	}
	for _, d := range m.devices {
		used := m.ledger.used(d)
		if d.BudgetBytes > 0 && used > d.BudgetBytes && used > before[d] && !join {
			fail("%s uses %d of %d", d.Key(), used, d.BudgetBytes)
		}
		if _, told := in.(measured); d.BudgetBytes > 0 && used+d.foreign > d.BudgetBytes && used > before[d] && !join && !told {
			fail("%s uses %d of %d beside others' %d", d.Key(), used, d.BudgetBytes, d.foreign)
		}
		if d.peak < used {
			fail("the peak of %s is %d, below %d", d.Key(), d.peak, used)
		}
	}
	for _, h := range m.hosts() {
		if h.UsedBytes > h.BudgetBytes && h.UsedBytes > kept && !join {
			fail("%s keeps %d of %d", h.Host, h.UsedBytes, h.BudgetBytes)
		}
	}
	m.checkRequests(fail)
	m.checkOrder(in, phases, events, fail)
	if !m.wake.IsZero() && !m.wake.After(m.now) {
		fail("it is %v, and something is due at %v", m.now, m.wake)
	}
	silent := slices.ContainsFunc(m.services, func(s *service) bool { return s.silent }) // may hold what is waited for
	if len(m.works) == 0 && m.wake.IsZero() && !silent && !slices.ContainsFunc(m.requests, func(r *request) bool { return r.phase == granted }) && m.retry {
		for _, r := range m.requests {
			waits := func(s *service) bool { return m.others(s.device) > 0 || s.device.crowded } // for other processes
			if candidates := m.candidates(r.need); len(candidates) > 0 && !slices.ContainsFunc(candidates, waits) {
				fail("nothing is under way and %v waits", r.need)
			}
		}
	}
	return out
}

type failure func(format string, args ...any)

// checkRecord adds the events up: they alone must give the ledger.
func (m *checked) checkRecord(events []Event, fail failure) {
	for _, e := range events {
		switch e.Action {
		case Reserve, Prefetch:
			m.used[e.Device] += e.Bytes
		case Release, Lost:
			m.used[e.Device] -= e.Bytes
		case Evict:
			if e.Request == 0 && e.Job != "" && !strings.Contains(e.Reason, "no next use") && e.Bytes > 0 {
				fail("a prefetch evicted what has a next use: %s", e.Reason)
			}
		}
		if e.Device != "" && e.UsedBytes != m.used[e.Device] {
			fail("%v tells of %d bytes used, events before it of %d", e.Action, e.UsedBytes, m.used[e.Device])
		}
		if e.Reason == "" || e.Time != m.now {
			fail("%v has reason %q and time %v", e.Action, e.Reason, e.Time)
		}
		m.follow(e, fail)
	}
	for key, used := range m.used {
		d := slices.IndexFunc(m.devices, func(d *device) bool { return d.Key() == key })
		if d < 0 && used != 0 || d >= 0 && used != m.ledger.used(m.devices[d]) {
			fail("events give %d bytes for %s", used, key)
		}
	}
	now := m.snapshot()
	for _, c := range now.Components {
		if at := (place{c.Stage, c.Component}); m.states[at] != c.State {
			fail("events make %v %v", at, m.states[at])
		}
	}
	for _, v := range now.Stages {
		if v.Leased != (m.workers[v.Stage] != 0) || v.Leased && m.workers[v.Stage] != v.Request {
			fail("events let r%d work at %s", m.workers[v.Stage], v.Stage)
		}
	}
}

// follow takes an event up as a reader of the record does, who knows nothing else.
func (m *checked) follow(e Event, fail failure) {
	at := place{e.Stage, e.Component}
	was := m.states[at]
	become := func(from []State, to State) {
		delete(m.begun, at)
		if m.states[at] = to; !slices.Contains(from, was) {
			fail("%v %v of %v, which was %v", e.Action, e.Class, at, was)
		}
	}
	switch {
	case e.Class == Found:
		if e.Action == Keep {
			become([]State{Absent}, Warm)
		} else {
			become([]State{Absent, Warm}, Resident)
		}
	case e.Action == Reserve:
		m.sets[e.Stage] = e
		for _, name := range e.Components {
			if own := (place{e.Stage, name}); m.states[own] == Absent || m.states[own] == Warm {
				m.states[own] = Loading
			}
		}
	case e.Action == Load:
		become([]State{Loading, Resident}, Loading) // one is resident whose eviction failed
		if set := m.sets[e.Stage]; set.Request != e.Request || !slices.Contains(set.Components, e.Component) {
			fail("%v loads for r%d, who has not reserved it", at, e.Request)
		}
		for _, name := range m.sets[e.Stage].Components {
			if m.begun[place{e.Stage, name}] {
				fail("%v loads beside %s of the same set", at, name)
			}
		}
		m.begun[at] = true
	case e.Action == Prefetch:
		become([]State{Absent, Warm}, Loading)
		m.begun[at] = true
	case e.Action == Drop:
		become([]State{Warm}, Evicting)
	case e.Action == Keep:
		become([]State{Absent, Evicting}, Warm) // of one that fails to be dropped
	case e.Action == Loaded:
		become([]State{Loading}, Resident)
	case e.Action == Evict && e.Class == Failed:
		become([]State{Evicting}, Resident)
	case e.Action == Evict:
		become([]State{Loading, Resident}, Evicting)
		if set, ok := m.sets[e.Stage]; ok && slices.Contains(set.Components, e.Component) {
			fail("%v is evicted, which r%d has reserved", at, set.Request)
		}
	case e.Action == Release && e.Class == Failed:
		become([]State{Loading}, Absent)
		if e.Request != 0 {
			delete(m.sets, e.Stage)
		}
	case e.Action == Release && e.Class == Unneeded:
		become([]State{Loading}, Absent)
	case e.Action == Release && e.Class == Evicted:
		become([]State{Evicting}, Absent)
	case e.Action == Grant && m.workers[e.Stage] == 0:
		m.workers[e.Stage] = e.Request
		for _, name := range e.Components {
			if state := m.states[place{e.Stage, name}]; state != Resident {
				fail("r%d works with %s, which is %v", e.Request, name, state)
			}
		}
		if set := m.sets[e.Stage]; set.Request != e.Request || !slices.Equal(set.Components, e.Components) {
			fail("r%d is granted %v, and has reserved %v", e.Request, e.Components, set.Components)
		}
	case e.Action == Grant, e.Class == WorkDone && m.workers[e.Stage] != e.Request:
		fail("%v %v of r%d at %s, where r%d works", e.Action, e.Class, e.Request, e.Stage, m.workers[e.Stage])
	case e.Class == WorkDone:
		delete(m.workers, e.Stage)
		delete(m.sets, e.Stage)
	case e.Class == WorkWithdrawn:
		delete(m.sets, e.Stage)
	case e.Action == Lost:
		m.states[at] = Absent
		delete(m.begun, at)
		if e.Request != 0 {
			delete(m.sets, e.Stage)
		}
		if m.workers[e.Stage] == e.Request {
			delete(m.workers, e.Stage)
		}
	}
	if (e.Action == Evict || e.Action == Release) && e.Class == 0 {
		fail("%v has no class", e.Action)
	}
}

// checkWorks keeps account of loads and evictions: one for a component at a time, and the component
// knows it.
func (m *checked) checkWorks(in input, effects []effect, fail failure) {
	switch in := in.(type) {
	case loadDone:
		delete(m.works, in.op)
	case loadFailed:
		delete(m.works, in.op)
	case evictDone:
		delete(m.works, in.op)
	case evictFailed:
		delete(m.works, in.op)
	}
	start := func(op opID, by process, name string) {
		if s := m.service(by.stage); s == nil || by != s.process() {
			fail("%v is asked for work, known is %v", by, s)
		}
		for _, at := range m.works {
			if at == (place{by.stage, name}) {
				fail("two works at once at %s", at)
			}
		}
		m.works[op] = place{by.stage, name}
	}
	for _, e := range effects {
		switch e := e.(type) {
		case startLoad:
			start(e.op, e.at, e.name)
		case startEvict:
			if _, ok := m.works[e.load]; !ok && e.load != 0 {
				fail("load %d was cancelled and is not under way", e.load)
			}
			delete(m.works, e.load)
			start(e.op, e.at, e.name)
		case abandon:
			maps.DeleteFunc(m.works, func(_ opID, at place) bool { return at.stage == e.stage })
		}
	}
	for _, s := range m.services {
		for _, c := range s.components {
			_, known := m.works[c.op]
			r := c.holder()
			if c.queued && (known || c.state != Loading || r == nil || r.phase != reserved) || c.pending && (known || c.state != Evicting) || !c.pending && !c.queued && (c.state == Loading || c.state == Evicting) != known {
				fail("%s %s is %v, its work is known: %v", s.id, c.name, c.state, known)
			}
			if (c.state == Absent || c.state == Warm) && c.bytes != 0 || c.state == Absent && c.warm != 0 || c.state == Warm && c.warm == 0 {
				fail("%s %s is %v with %d bytes, and %d in the host's memory", s.id, c.name, c.state, c.bytes, c.warm)
			}
			if c.prefetch && c.state != Loading {
				fail("%s %s is %v and a prefetch", s.id, c.name, c.state)
			}
		}
	}
}

// checkRequests: a service has one request, what a granted one has is resident, and a reserved one loads, one after another.
func (m *checked) checkRequests(fail failure) {
	seats := map[*service]*request{}
	for _, r := range m.requests {
		if (r.phase == waiting) != (r.service == nil) {
			fail("r%d is in phase %d at %v", r.request, r.phase, r.service)
		}
		if r.phase == waiting {
			continue
		}
		if seats[r.service] != nil || r.service.holder != r {
			fail("%s has two requests", r.service.id)
		}
		seats[r.service] = r
		loads := 0
		for c := range r.components {
			if c.state == Loading && !c.queued {
				loads++
			}
			if r.phase == reserved && c.state != Loading && c.state != Resident || r.phase == granted && c.state != Resident {
				fail("r%d is in phase %d and its %s %v", r.request, r.phase, c.name, c.state)
			}
		}
		if r.phase == reserved && loads == 0 {
			fail("%d loads are under way for r%d in phase %d", loads, r.request, r.phase)
		}
	}
	for _, s := range m.services {
		if s.holder != seats[s] {
			fail("%s is held by a request that is gone", s.id)
		}
	}
}

// asks counts those ahead of a request that is made.
func (m *checked) asks(in asked) {
	for _, r := range m.requests {
		if r.need.Kind == in.need.Kind {
			m.ahead[in.request]++
		}
	}
}

// checkOrder: who was placed in this step took neither the service nor the bytes of someone who came
// before and still waits, and who reserved took no bytes that are promised to one placed before.
func (m *checked) checkOrder(in input, before map[*request]phase, events []Event, fail failure) {
	var passing []*request // were placed in this step, and nothing was loaded or evicted for them
	for _, r := range m.requests {
		if before[r] == waiting && r.phase != waiting && !slices.ContainsFunc(events, func(e Event) bool {
			return e.Request == r.request && (e.Action == Load || e.Action == Evict)
		}) {
			passing = append(passing, r)
		}
	}
	promised := false // who was placed is so since before; otherwise it may have lost its place and got it again
	switch in.(type) {
	case asked, released, cancelled, loadDone, evictDone:
		promised = true
	}
	for i, r := range m.requests {
		was := before[r] // waiting, if it is new
		for j, w := range m.requests[:i] {
			switch {
			case w.phase == waiting && r.phase != waiting && was == waiting:
				m.checkOvertaking(r, w, m.requests[j:], passing, fail)
			case promised && before[w] == placed && w.phase == placed && r.phase >= reserved && was < reserved && w.service.device == r.service.device:
				if d := w.service.device; !d.holds(m.ledger.used(d) - m.evicting(d) + w.service.missing(w.need)) { // evictions under way are promised too
					fail("r%d reserved bytes that r%d was promised before", r.request, w.request)
				}
			}
		}
	}
}

// checkOvertaking: r was placed while w waits; after are w and those who came after it. It may only take what w waits
// for if there is nothing to load for it, and not oftener than w allows.
func (m *checked) checkOvertaking(r, w *request, after, passing []*request, fail failure) {
	took := ""
	passes := slices.Contains(passing, r)
	for _, s := range m.candidates(w.need) {
		if s == r.service {
			if took = "a stage"; !passes {
				fail("r%d took %s from r%d, who came before, and has to load", r.request, s.id, w.request)
			}
		}
		if s.device != r.service.device {
			continue
		}
		sum := s.whole(w.need)
		for _, q := range after {
			if q.service != nil && q.service.device == s.device {
				sum += q.service.whole(q.need)
			}
		}
		if s.device.holds(sum) {
			continue
		}
		took = "bytes"
		if !slices.ContainsFunc(passing, func(q *request) bool { return slices.Contains(after, q) }) {
			fail("r%d took bytes that r%d waits for, and has to load", r.request, w.request)
		}
	}
	if took == "" || !passes {
		return
	}
	m.overtaken[w.request]++
	factor := m.policy.WaitFactor
	if factor == 0 {
		factor = 2
	}
	if n, most := m.overtaken[w.request], (factor-1)*float64(m.ahead[w.request]+1); float64(n) > most {
		fail("r%d took %s from r%d, who was overtaken %d times and allows %v", r.request, took, w.request, n, most)
	}
}

// place names a component.
type place struct {
	stage StageID
	name  string
}
