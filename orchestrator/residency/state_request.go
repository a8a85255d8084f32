package residency

import (
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

type (
	// announced: the turns a job has yet to finish, in order. It replaces what the job said before.
	announced struct {
		job   JobID
		needs []Need
	}
	// forgotten: a job asks for nothing more.
	forgotten struct{ job JobID }
	// asked: a request for a stage. One that tries is refused rather than made to wait or evict.
	asked struct {
		request RequestID
		job     JobID
		need    Need
		try     bool
		again   bool // after work that ran out of memory: when all evictions on its device are done
	}
	// cancelled: a request's caller gave up, whatever became of it. err tells why.
	cancelled struct {
		request RequestID
		err     error
	}
	// released: a granted request is done.
	released struct{ request RequestID }
	// found: what the work of a granted request found out, and why if its weights are stale.
	found struct {
		request RequestID
		what    finding
		why     string
	}
	// ticked: time has passed.
	ticked struct{}
)

func (in announced) apply(l *ledger) {
	j := l.job(in.job)
	if j == nil {
		j = &job{id: in.job}
		l.jobs = append(l.jobs, j)
	}
	j.needs = slices.Clone(in.needs)
	for _, n := range in.needs {
		if !slices.ContainsFunc(j.sets, n.equal) {
			j.sets = append(j.sets, n)
		}
		for _, r := range l.requests {
			if r.job == in.job && r.phase == waiting && r.need.equal(n) {
				r.need.Footprints = n.Footprints
				r.line = l.lineOf(n)
			}
		}
	}
}

func (ticked) apply(*ledger) {}

func (in forgotten) apply(l *ledger) {
	l.jobs = slices.DeleteFunc(l.jobs, func(j *job) bool { return j.id == in.job })
}

func (in asked) apply(l *ledger) {
	if j := l.job(in.job); j != nil && !in.try {
		j.started = true
	}
	r := &request{cause: cause{in.request, in.job}, need: in.need, try: in.try, retried: in.again, ahead: -1, asked: l.now, since: l.now, line: l.lineOf(in.need)}
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
		err = stage.Errorf(stage.StageUnreachable, "no %v that has model %q was found in time: %w", r.need.Kind, stage.ModelOf(r.need.first()), err)
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
		left := without(j.needs, r.need)
		j.needs, j.taken = left, j.taken+len(j.needs)-len(left)
		l.expect(r, j)
	}
	l.end(r)
}

// finding is about the work of a granted request.
type finding uint8

const (
	failed     finding = iota // its runtime process ended
	crowded                   // other processes had bytes that it was to have
	exhausted                 // the device ran out of memory; loads that find it out are retried by the ledger itself, see loadFailed
	distrusted                // its weights are stale
	unfinished                // it failed or was cut off, and its job's turn is still to be taken
)

func (in found) apply(l *ledger) {
	r := l.request(in.request)
	if r == nil || r.phase != granted {
		return
	}
	switch in.what {
	case failed:
		l.died(r.service)
	case crowded:
		r.service.device.crowded = true
	case exhausted:
		l.evictIdle(r)
	case distrusted:
		for c := range r.components {
			c.stale, c.staleFor = in.why, r.cause
		}
	case unfinished:
		r.unfinished = true
	}
}

// end takes a request off the ledger, in whatever phase it is.
func (l *ledger) end(r *request) {
	if r.phase == reserved {
		l.letGo(r)
	}
	l.requests = slices.DeleteFunc(l.requests, func(q *request) bool { return q == r })
	if r.service == nil {
		return
	}
	r.service.holder = nil
	if r.phase >= reserved {
		e := l.about(Release, r, r.footprint().ScratchBytes, "the scratch of %v is no longer used", r.need)
		e.Class, e.Took, e.Unfinished, e.Work = WorkDone, l.now.Sub(r.since), r.unfinished, r.need.Work
		if r.phase == reserved {
			e.Class = WorkWithdrawn
		}
		if r.phase == reserved || r.unfinished {
			e.Work.Evaluations = 0
		}
	}
	if r.phase == granted {
		for c := range r.components {
			c.lastUsed, c.spent = l.now, true
		}
	}
}

// unseat takes the service away from a request.
func (l *ledger) unseat(r *request) {
	id, was := r.service.id, r.phase
	if was == reserved {
		l.letGo(r)
	}
	r.service.holder, r.service, r.told = nil, nil, nil
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

// without is needs less the first for the same set.
func without(needs []Need, need Need) []Need {
	i := slices.IndexFunc(needs, need.equal)
	if i < 0 {
		return needs
	}
	return slices.Delete(slices.Clone(needs), i, i+1)
}

// reservePlaced reserves for placed requests whose room is there, in order of arrival.
func (l *ledger) reservePlaced() {
	ahead := map[*device]int64{} // bytes that earlier ones still wait for
	for _, r := range l.requests {
		if r.phase != placed {
			continue
		}
		d, missing := r.service.device, r.service.missing(r.need)
		fits := d.BudgetBytes == 0 || !d.crowded && l.others(d)+l.used(d)+ahead[d]+missing <= d.BudgetBytes
		leaving := false
		for c := range r.components {
			leaving = leaving || c.state == Evicting
		}
		if !fits || leaving || r.retried && l.evicting(d) > 0 {
			ahead[d] += missing
			continue
		}
		l.reserve(r)
	}
}

// reserve makes a placed request's bytes its own, and loads or grants.
func (l *ledger) reserve(r *request) {
	f, missing, waited := r.footprint(), r.service.missing(r.need), l.now.Sub(r.since)
	scratch, held := count(f.ScratchBytes), "; its weights are resident"
	r.phase, r.since = reserved, l.now
	for i, name := range r.need.Components {
		c := r.service.component(name)
		c.prefetch = false
		switch {
		case c.state == Absent || c.state == Warm:
			c.state, c.bytes, c.queued = Loading, f.Weights[i].Bytes, true
		case c.state == Loading:
			held = "; its weights are loading"
		case c.doubtful:
			held = ""
		}
	}
	l.mark(r.service.device)
	if weights := missing - f.ScratchBytes; weights > 0 {
		l.about(Reserve, r, missing, "%v takes %s bytes of weights and %s of scratch", r.need, count(weights), scratch).Took = waited
	} else {
		l.about(Reserve, r, missing, "%v takes %s bytes of scratch%s", r.need, scratch, held).Took = waited
	}
	l.next(r)
}

// next loads what the set of a reserved request is still to have, one component after another; then it is granted.
func (l *ledger) next(r *request) {
	for c := range r.components {
		if c.state == Loading && !c.queued {
			return
		}
	}
	f := r.footprint()
	for i, name := range r.need.Components {
		switch c := r.service.component(name); {
		case c.queued:
			why := "not resident"
			if c.warm > 0 {
				why = "warm"
			}
			l.load(c, r.cause, "%v is %s%s", c, why, streaming(f.Weights[i], f.ScratchBytes, r.service.device))
			return
		case c.doubtful:
			l.load(c, r.cause, "an eviction of %v failed, and loading again makes sure of it", c)
			return
		}
	}
	l.grant(r)
}

// letGo leaves the components of a reserved request to themselves: what loads goes on as a prefetch, what is queued is not
// loaded.
func (l *ledger) letGo(r *request) {
	for c := range r.components {
		switch {
		case c.queued:
			bytes := c.bytes
			c.state, c.bytes, c.queued = Absent, 0, false
			l.record(Release, c, r.cause, bytes, "the load of %v had not begun, and %v is not served here", c, r.need).Class = Unneeded
			l.offDevice(c, Unneeded)
		case c.state == Loading:
			c.prefetch = true
		}
	}
}

func (l *ledger) grant(r *request) {
	loading, f, editions := l.now.Sub(r.since), r.footprint(), map[string]stage.Edition{}
	for c := range r.components {
		editions[c.name] = c.edition
		l.came(c, r.job)
	}
	e := l.about(Grant, r, bytes(f), "%v works for the request", r.need)
	e.Took, e.WholeBytes = loading, max(f.WholeBytes(), f.WeightsBytes())
	if j := l.job(r.job); j != nil && !r.try {
		e.Turns, e.Taken = len(j.needs), j.taken
	}
	l.do(grant{r.request, Lease{Stage: r.service.id, Components: r.need.Components, Queued: r.since.Sub(r.asked), Loading: loading, Footprint: f, Editions: editions}})
	r.phase, r.since = granted, l.now
}

// fame is how many runs of jobs the ledger remembers in telling which components are popular.
const fame = 512

// came counts a grant of a component: further ones of the same job in a row are one run.
func (l *ledger) came(c *component, job JobID) {
	if c.visitor == job && job != "" {
		return
	}
	c.visitor = job
	c.runs++
	if l.runs++; l.runs < fame {
		return
	}
	l.runs = 0
	for _, s := range l.services {
		for _, c := range s.components {
			c.runs /= 2
			l.runs += c.runs
		}
	}
}
