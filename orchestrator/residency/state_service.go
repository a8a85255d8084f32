package residency

import (
	"cmp"
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

type (
	// joined: a stage is there, with what it holds, or may be another than it was. Of one that is the same all stays that it
	// does not deny.
	joined struct {
		holds
		kind       stage.Kind
		device     Device
		planning   string
		names      []string // of components that it can load
		warmBudget int64    // bytes of warm weights that the host may have
		generation uint64   // of the stage's runtime processes
		draining   bool     // holds bytes but takes no requests
		overhead   int64    // bytes of its runtime process that are neither weights nor scratch
		share      stage.DeviceShare
	}
	// left: a service is gone.
	left struct{ stage StageID }
	// seen: the service is there, with a runtime process of that generation. A later one than was known
	// means that the last one ended, and its bytes with it.
	seen struct {
		stage      StageID
		generation uint64
	}
	// measured: what a service says of its device's budget, of its own process and of others there.
	measured struct {
		stage    StageID
		overhead int64
		share    stage.DeviceShare
	}
)

func (in joined) apply(l *ledger) {
	s := l.service(in.stage)
	if s != nil && (s.kind != in.kind || s.planning != in.planning || s.device.Key() != in.device.Key() || in.generation < s.generation) {
		l.drop(s, "another program answers")
		s = nil
	}
	if s == nil {
		s = &service{id: in.stage, kind: in.kind, planning: in.planning, device: l.device(in.device), generation: in.generation}
		i, _ := slices.BinarySearchFunc(l.services, s.id, func(s *service, id StageID) int { return cmp.Compare(s.id, id) })
		l.services = slices.Insert(l.services, i, s)
	}
	s.warmBudget, s.names, s.draining, s.silent = in.warmBudget, in.names, in.draining, false
	l.relate()
	l.turnAway(s)
	seen{in.stage, in.generation}.apply(l)
	in.share.BudgetBytes = in.device.BudgetBytes
	measured{in.stage, in.overhead, in.share}.apply(l)
	in.holds.apply(l)
}

func (in left) apply(l *ledger) {
	if s := l.service(in.stage); s != nil {
		l.drop(s, "the service is gone")
	}
}

func (in seen) apply(l *ledger) {
	if s := l.service(in.stage); s != nil && in.generation > s.generation {
		if l.restarts == nil {
			l.restarts = map[stage.Kind]int{}
		}
		l.restarts[s.kind]++
		s.generation = in.generation
		l.lose(s, "the runtime process ended")
	}
}

// died is for news of a runtime's end that come before the next look, which will then see no more
// than is counted here.
func (l *ledger) died(s *service) {
	seen{s.id, s.generation + 1}.apply(l)
}

func (in measured) apply(l *ledger) {
	s := l.service(in.stage)
	if s == nil {
		return
	}
	d := s.device
	s.budget, s.overhead = in.share.BudgetBytes, in.overhead
	l.resize(d)
	same := d.foreign == in.share.ForeignBytes && slices.EqualFunc(d.wants, in.share.ForeignWants, func(a, b stage.Want) bool {
		return a.Bytes == b.Bytes && a.Since.Equal(b.Since)
	})
	d.share = share{foreign: in.share.ForeignBytes, wants: in.share.ForeignWants}
	if !same {
		var wanted int64
		for _, w := range d.wants {
			wanted += w.Bytes
		}
		l.note(Event{Action: Foreign, Stage: s.id, Kind: s.kind, Bytes: d.foreign}, d, "other processes on the device hold %s bytes and wait for %s", count(d.foreign), count(wanted))
	}
}

// silenced: a service does not answer, or does again. Until then it keeps what it holds, which counts,
// and its lease; nobody is sent there, and nothing is evicted there.
type silenced struct {
	stage  StageID
	silent bool
}

func (in silenced) apply(l *ledger) {
	s := l.service(in.stage)
	if s == nil {
		return
	}
	s.silent = in.silent
	l.turnAway(s)
}

// turnAway lets a request for which room is being made, or weights are loaded at a silent service, look for another one, if
// this one does not serve it any more. The load goes on as a prefetch.
func (l *ledger) turnAway(s *service) {
	r := s.holder
	switch {
	case r == nil || s.serves(r.need):
	case r.phase == placed:
		l.unseat(r)
	case r.phase == reserved && s.silent:
		since, scratch := r.since, r.event(Release)
		scratch.Stage, scratch.Bytes = s.id, r.footprint().ScratchBytes
		r.losses-- // nothing is lost
		l.unseat(r)
		e := l.note(scratch, s.device, "the scratch of %v is not used: %s, which loads it, does not answer", r.need, s.id)
		e.Class, e.Took = WorkWithdrawn, l.now.Sub(since)
	}
}

// holds: what a stage says that it holds, asked for when the last load or eviction was since. What was resident or warm then,
// and is said not to be, is lost; what is said to be and was not known is found. What has been loaded or evicted since, or
// is being, is not touched: that answers for itself.
//
// Nothing is to be found or missed while a stage serves one orchestrator over one connection. It is when the answer of a
// load or eviction was lost on the way, or somebody else was there in between.
type holds struct {
	stage          StageID
	resident, warm []stage.ResidentComponent
	since          opID
	editions       map[string]stage.Edition // by name
}

func (in holds) apply(l *ledger) {
	s := l.service(in.stage)
	if s == nil {
		return
	}
	for _, c := range s.components {
		named := func(m stage.ResidentComponent) bool { return m.Name == c.name }
		there := slices.ContainsFunc(in.resident, named) || c.state == Warm && slices.ContainsFunc(in.warm, named)
		if c.op <= in.since && (c.state == Resident || c.state == Warm) && !there {
			l.miss(c, "its stage does not hold it")
		}
	}
	away := func(c *component) bool { return c.op <= in.since && (c.state == Absent || c.state == Warm) }
	for _, m := range in.resident {
		if c := s.component(m.Name); away(c) {
			c.state, c.bytes, c.warm, c.lastUsed, c.loaded = Resident, m.WeightsBytes, 0, l.now, l.now
			l.mark(s.device)
			l.record(Reserve, c, cause{}, c.bytes, "%v is resident, as its stage says", c).Class = Found
		}
	}
	for _, m := range in.warm {
		if c := s.component(m.Name); away(c) && c.state == Absent {
			c.warm, c.lastUsed = m.WeightsBytes, l.now
			l.offDevice(c, Found)
		}
	}
	for _, c := range s.components { // streamed weights are known once they have been read
		if e := in.editions[c.name]; c.op <= in.since && c.state != Loading && (e.Stamp == c.edition.Stamp || c.edition.Stamp == "") && e.Identity != "" {
			c.edition = e
		}
	}
	for _, m := range slices.Concat(in.resident, in.warm) {
		if c := s.component(m.Name); m.Stale != "" && c.op <= in.since && (c.state == Resident || c.state == Warm) {
			c.stale, c.staleFor = m.Stale, cause{}
		}
	}
}

// lose takes off all that a service held. Who was at work there is told; who waited there waits anew.
func (l *ledger) lose(s *service, why string) {
	if slices.ContainsFunc(s.components, func(c *component) bool { return c.state == Loading || c.state == Evicting }) {
		l.do(abandon{s.id})
	}
	for _, c := range s.components {
		l.miss(c, why)
	}
	if s.holder != nil { // for which room was being made
		l.unseat(s.holder)
	}
}

// miss takes off what a service held of a component, and the scratch of who worked with it.
func (l *ledger) miss(c *component, why string) {
	var by cause
	var scratch int64
	held := c.state != Absent
	if r := c.holder(); r != nil && r.phase >= reserved {
		scratch, by = r.footprint().ScratchBytes, r.cause
		l.unseat(r)
	}
	bytes := c.bytes + scratch
	// What may have ended the runtime is not prefetched again.
	*c = component{
		service: c.service, name: c.name, op: l.nextOp(), failed: c.failed || c.state == Loading,
		runs: c.runs, visitor: c.visitor, edition: c.edition,
	}
	if held {
		l.record(Lost, c, by, bytes, "%s: %v is lost", why, c)
	}
}

// drop loses a service and forgets it.
func (l *ledger) drop(s *service, why string) {
	l.lose(s, why)
	l.keepPaces(s)
	for _, c := range s.components {
		l.runs -= c.runs
	}
	l.services = slices.DeleteFunc(l.services, func(t *service) bool { return t == s })
	l.relate()
	l.resize(s.device)
}

// device is the one of that key, or a new one.
func (l *ledger) device(of Device) *device {
	i, found := slices.BinarySearchFunc(l.devices, of.Key(), func(d *device, key string) int { return cmp.Compare(d.Key(), key) })
	if !found {
		l.devices = slices.Insert(l.devices, i, &device{Device: of})
	}
	return l.devices[i]
}

// resize gives a device the smallest limit of its services, less what their processes take for themselves, and forgets it with
// the last of them.
func (l *ledger) resize(d *device) {
	d.BudgetBytes = 0
	here, overhead := 0, int64(0)
	for _, s := range l.services {
		if s.device != d {
			continue
		}
		here++
		overhead += s.overhead
		if s.budget > 0 && (d.BudgetBytes == 0 || s.budget < d.BudgetBytes) {
			d.BudgetBytes = s.budget
		}
	}
	if d.BudgetBytes > 0 {
		d.BudgetBytes = max(1, d.BudgetBytes-overhead)
	}
	if here == 0 {
		l.devices = slices.DeleteFunc(l.devices, func(e *device) bool { return e == d })
	}
}

// relate finds out which services may have each other's requests: those with a component in common, also by way of others.
func (l *ledger) relate() {
	first := map[string]*service{} // by component
	for _, s := range l.services {
		s.line = s
		for _, name := range s.names {
			t := first[name]
			if t == nil {
				first[name] = s
				continue
			}
			from, to := s.line, t.line
			for _, u := range l.services {
				if u.line == from {
					u.line = to
				}
			}
		}
	}
	for _, r := range l.requests {
		r.line = l.lineOf(r.need)
	}
}

// lineOf is that of the services that may have n, nil if there is none.
func (l *ledger) lineOf(n Need) *service {
	if s := one(l.services, func(s *service) bool { return s.knows(n) }); s != nil {
		return s.line
	}
	return nil
}
