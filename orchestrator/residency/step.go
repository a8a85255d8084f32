package residency

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// maxLosses is how many runtimes may end while they load for one request: beyond it, the load is
// taken for what ends them. maxRefusals is how many of its loads may find that other processes have the bytes, which
// each time is heard of before the next.
const (
	maxLosses   = 2
	maxRefusals = 30
)

func (in joined) apply(l *ledger) {
	s := l.service(in.stage)
	if s != nil && (s.kind != in.kind || s.device.Key() != in.device.Key() || in.generation < s.generation) {
		l.drop(s, "another program answers")
		s = nil
	}
	if s == nil {
		s = &service{id: in.stage, kind: in.kind, device: l.device(in.device), generation: in.generation}
		i, _ := slices.BinarySearchFunc(l.services, s.id, func(s *service, id StageID) int { return cmp.Compare(s.id, id) })
		l.services = slices.Insert(l.services, i, s)
	}
	s.warm, s.models, s.draining, s.silent = in.keeps, in.models, in.draining, false
	l.turnAway(s)
	seen{in.stage, in.generation}.apply(l)
	in.share.BudgetBytes = in.device.BudgetBytes
	measured{in.stage, in.share}.apply(l)
	in.holds.apply(l)
}

func (in left) apply(l *ledger) {
	if s := l.service(in.stage); s != nil {
		l.drop(s, "the service is gone")
	}
}

func (in seen) apply(l *ledger) {
	if s := l.service(in.stage); s != nil && in.generation > s.generation {
		s.generation = in.generation
		l.lose(s, "the runtime process ended")
	}
}

// died is for news of a runtime's end that come before the next look, which will then see no more
// than is counted here.
func (l *ledger) died(s *service) {
	seen{s.id, s.generation + 1}.apply(l)
}

func (in failed) apply(l *ledger) {
	if r := l.request(in.request); r != nil && r.phase == granted {
		l.died(r.service)
	}
}

func (in announced) apply(l *ledger) {
	j := l.job(in.job)
	if j == nil {
		j = &job{id: in.job}
		l.jobs = append(l.jobs, j)
	}
	j.needs = slices.Clone(in.needs)
}

func (ticked) apply(*ledger) {}

func (in forgotten) apply(l *ledger) {
	l.jobs = slices.DeleteFunc(l.jobs, func(j *job) bool { return j.id == in.job })
}

func (in asked) apply(l *ledger) {
	if j := l.job(in.job); j != nil && !in.try {
		j.started = true
	}
	r := &request{cause: cause{in.request, in.job}, need: in.need, try: in.try, ahead: -1, asked: l.now, since: l.now}
	l.requests = append(l.requests, r)
	r.allowance = l.policy.allowance(l.before(len(l.requests) - 1))
}

func (in cancelled) apply(l *ledger) {
	r := l.request(in.request)
	if r == nil {
		return
	}
	err := in.err
	if r.phase == waiting && len(l.candidates(r.need)) == 0 && stage.ReasonOf(err) == "" {
		err = stage.Errorf(stage.StageUnreachable, "no %v that has model %q was found in time: %w", r.need.Kind, r.need.Model, err)
	}
	if r.phase < reserved {
		e := r.event(Withdraw)
		e.Took = l.now.Sub(r.since)
		l.note(e, nil, "the caller of %v gave up", r.need)
	}
	l.end(r)
	l.do(refuse{in.request, err})
}

func (in released) apply(l *ledger) {
	r := l.request(in.request)
	if r == nil || r.phase != granted {
		return
	}
	if j := l.job(r.job); j != nil && !r.try && !r.unfinished {
		j.needs = without(j.needs, r.need)
		l.expect(r, j.needs)
	}
	l.end(r)
}

func (in loadDone) apply(l *ledger) {
	c := l.busy(in.op, Loading)
	if c == nil {
		return
	}
	c.state, c.prefetch, c.failed, c.doubtful, c.lastUsed = Resident, false, false, false, l.now
	c.loaded, c.spent, c.op, c.stale = l.now, false, l.nextOp(), ""
	stowed := c.stowed()
	c.kept = 0
	c.service.pace(stowed).add(c.bytes, l.now.Sub(c.since))
	r, by := c.holder(), cause{}
	waits := r != nil && r.phase == reserved // else it was a prefetch
	if waits {
		by = r.cause
	}
	e := l.record(Loaded, c, by, c.bytes, "%v is resident%s", c, c.changes(in.edition))
	if e.Took = l.now.Sub(c.since); c.edition.Differs(in.edition) {
		e.Class = Changed
	} else if stowed {
		e.Class = FromWarm
	}
	c.edition = in.edition
	if waits {
		l.grant(r)
	}
}

func (in loadFailed) apply(l *ledger) {
	c := l.busy(in.op, Loading)
	if c == nil {
		return
	}
	r, bytes, by := c.holder(), c.bytes, cause{}
	busy := stage.ReasonOf(in.err) == stage.DeviceBusy
	c.state, c.bytes, c.op, c.prefetch, c.failed = Absent, 0, l.nextOp(), false, !busy
	waits := r != nil && r.phase == reserved // else it was a prefetch
	if waits {
		by = r.cause
		bytes += r.need.Footprint.ScratchBytes
		r.phase, r.since = placed, l.now
	}
	e := l.record(Release, c, by, bytes, "the load of %v failed: %v", c, in.err)
	e.Class, e.Took = Failed, l.now.Sub(c.since)
	l.settled(c, Failed)
	c.service.device.crowded = c.service.device.crowded || busy
	switch {
	case !waits:
	case busy && r.refusals < maxRefusals:
		r.refusals++
		l.unseat(r)
	case outOfMemory(in.err) && !r.retried:
		l.evictIdle(r)
		r.retried = true
	default:
		l.end(r)
		l.do(refuse{r.request, in.err})
	}
	if stage.ReasonOf(in.err) == stage.RuntimeDied {
		l.died(c.service)
	}
}

func (in evictDone) apply(l *ledger) {
	c := l.busy(in.op, Evicting)
	if c == nil {
		return
	}
	bytes, by, what := c.bytes, c.cause, fmt.Sprintf("is evicted, %s bytes were freed", count(in.freed))
	if c.dropping() {
		what = "is no longer kept by the host's memory"
	}
	c.bytes, c.kept, c.op, c.doubtful, c.cause, c.stale = 0, min(in.kept, c.kept), l.nextOp(), false, cause{}, ""
	e := l.record(Release, c, by, bytes, "%v %s", c, what)
	e.Class, e.Took = Evicted, l.now.Sub(c.since)
	l.settled(c, 0)
}

func (in evictFailed) apply(l *ledger) {
	c := l.busy(in.op, Evicting)
	if c == nil {
		return
	}
	if stage.ReasonOf(in.err) == stage.RuntimeDied {
		l.died(c.service) // and has given the bytes back
		return
	}
	by := c.cause
	c.doubtful, c.cause = true, cause{}
	if c.dropping() {
		l.settled(c, Failed)
		return
	}
	c.state, c.op = Resident, l.nextOp()
	l.record(Evict, c, by, 0, "the eviction failed and %s bytes still count: %v", count(c.bytes), in.err).Class = Failed
}

// end takes a request off the ledger, in whatever phase it is.
func (l *ledger) end(r *request) {
	l.requests = slices.DeleteFunc(l.requests, func(q *request) bool { return q == r })
	if r.service == nil {
		return
	}
	c := r.component()
	r.service.holder = nil
	if r.phase >= reserved {
		e := l.record(Release, c, r.cause, r.need.Footprint.ScratchBytes, "the scratch of %v is no longer used", c)
		e.Class, e.Took, e.Unfinished = WorkDone, l.now.Sub(r.since), r.unfinished
		if r.phase == reserved {
			e.Class = WorkWithdrawn
		}
	}
	switch r.phase {
	case granted:
		c.lastUsed, c.spent = l.now, true
	case reserved:
		c.prefetch = true
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

// miss takes off what a service held of a model.
func (l *ledger) miss(c *component, why string) {
	bytes, by, held := c.bytes, cause{}, c.state != Absent
	if r := c.holder(); r != nil && r.phase >= reserved {
		bytes += r.need.Footprint.ScratchBytes
		by = r.cause
		l.unseat(r)
	}
	// What may have ended the runtime is not prefetched again.
	*c = component{
		service: c.service, model: c.model, op: l.nextOp(), failed: c.failed || c.state == Loading,
		runs: c.runs, visitor: c.visitor, edition: c.edition,
	}
	if held {
		l.record(Lost, c, by, bytes, "%s: %v is lost", why, c)
	}
}

// unseat takes the service away from a request.
func (l *ledger) unseat(r *request) {
	id := r.service.id
	r.service.holder, r.service, r.told = nil, nil, nil
	was := r.phase
	r.phase = waiting
	if was >= reserved {
		r.since = l.now
	}
	if was == reserved {
		r.losses++
	}
	switch {
	case was == granted:
		l.end(r)
		l.do(revoke{r.request})
	case r.losses > maxLosses:
		l.end(r)
		l.do(refuse{r.request, stage.Errorf(stage.RuntimeDied, "runtimes ended %s while loading %v, the last at %s", stage.Count(r.losses, "time"), r.need, id)})
	}
}

// drop loses a service and forgets it.
func (l *ledger) drop(s *service, why string) {
	l.lose(s, why)
	for _, c := range s.components {
		l.runs -= c.runs
	}
	l.services = slices.DeleteFunc(l.services, func(t *service) bool { return t == s })
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

// resize gives a device the smallest limit of its services, and forgets it with the last of them.
func (l *ledger) resize(d *device) {
	d.BudgetBytes = 0
	here := 0
	for _, s := range l.services {
		if s.device != d {
			continue
		}
		here++
		if s.budget > 0 && (d.BudgetBytes == 0 || s.budget < d.BudgetBytes) {
			d.BudgetBytes = s.budget
		}
	}
	if here == 0 {
		l.devices = slices.DeleteFunc(l.devices, func(e *device) bool { return e == d })
	}
}

// mark keeps the peak.
func (l *ledger) mark(d *device) { d.peak = max(d.peak, l.used(d)) }

// without is needs less the first that equals need in kind and model.
func without(needs []Need, need Need) []Need {
	i := slices.IndexFunc(needs, func(n Need) bool { return n.Kind == need.Kind && n.Model == need.Model })
	if i < 0 {
		return needs
	}
	return slices.Delete(slices.Clone(needs), i, i+1)
}

// outOfMemory tells whether a load failed because the device has less than the ledger believes.
func outOfMemory(err error) bool {
	reason := stage.ReasonOf(err)
	return reason == stage.ModelDoesNotFit || reason == stage.EngineOOMUnplanned
}
