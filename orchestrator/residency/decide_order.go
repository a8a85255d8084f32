package residency

import (
	"slices"
	"time"
)

// moment is how long a service is kept for a job that has just worked there and announced the same turn to
// come at once.
const moment = 100 * time.Millisecond

// wait factors: of the zero Policy, and of one that serves in strict order of arrival.
const (
	defaultWaitFactor = 2
	inOrder           = 1
)

// A request may be overtaken by one that finds its weights resident where the other would have to load: so jobs
// that need the same weights follow each other. The bound: a request that had n ahead of it for the services it may
// have when it was asked for is overtaken at most (factor-1) * (n+1) times. So it waits for at most factor
// times as many turns as in strict order, and for none that begins later.

// allowance is how often a request may be overtaken that has so many ahead of it.
func (p Policy) allowance(ahead int) int {
	factor := p.WaitFactor
	if factor == 0 {
		factor = defaultWaitFactor
	}
	return int((factor - inOrder) * float64(ahead+1))
}

// ready tells whether n could be served at s now with no load and no eviction.
func (l *ledger) ready(n Need, s *service) bool {
	d := s.device
	return s.cold(n) == hot && l.free(d)-l.evicting(d) >= s.missing(n)
}

// yields tells whether r goes before w at s, and why w lets it: there is nothing to load for r.
func (l *ledger) yields(w *request, to Need, at *service) bool {
	return w.overtaken < w.allowance && l.ready(to, at) && (!at.serves(w.need) || at.cold(w.need) != hot)
}

// follower is who goes first at s, where r would have to load: the first of those behind it who finds its
// weights there. nil if there is none.
func (l *ledger) follower(r *request, s *service) *request {
	i := slices.Index(l.requests, r)
	for _, q := range l.requests[i+1:] {
		if q.phase == waiting && !q.try && s.serves(q.need) && l.ready(q.need, s) && !l.overtakes(q, s) {
			return q
		}
	}
	return nil
}

// saved tells whether r leaves s, where it would have to load, to the job that has just worked there and is about
// to ask for the same again.
func (l *ledger) saved(r *request, s *service) bool {
	x := s.expected
	if !l.now.Before(x.until) || l.job(x.job) == nil || !l.yields(r, x.need, s) {
		return false
	}
	l.by(x.until)
	return true
}

// expectation is a turn that is about to be asked for.
type expectation struct {
	job   JobID
	need  Need
	until time.Time
}

// expect notes that a job which has just ended a turn will ask for the same at once: before that one it announced only
// turns that came behind this one from the beginning. Others would have to be worked off first.
func (l *ledger) expect(r *request, j *job) {
	s := r.service
	s.expected = expectation{}
	place := func(n Need) int { return slices.IndexFunc(j.sets, n.equal) }
	for _, n := range j.needs {
		switch own := place(r.need); {
		case n.equal(r.need):
			s.expected = expectation{r.job, n, l.now.Add(moment)}
			return
		case place(n) <= own:
			return
		}
	}
}

// overtakes tells whether r, were it to run at s, would hold up a request that waits ahead of it and need not let
// it pass.
func (l *ledger) overtakes(r *request, s *service) bool {
	for w := range l.held(r, s) {
		if !l.yields(w, r.need, s) {
			return true
		}
	}
	return false
}

// overtake counts those whom r overtakes by running at s.
func (l *ledger) overtake(r *request, s *service) {
	for w := range l.held(r, s) {
		w.overtaken++
	}
}

// held yields the requests ahead of r that it would hold up, were it to run at s: by taking the service that they
// wait for, or bytes that they need. The rule is that what a waiting request needs and what those who came after it
// hold never exceed the budget together. So it waits at most for those who came before it, and for those it
// lets pass.
func (l *ledger) held(r *request, s *service) func(yield func(*request) bool) {
	return func(yield func(*request) bool) {
		d, after := s.device, s.whole(r.need) // held by those who came after the one looked at, with r
		ahead := false
		for _, w := range slices.Backward(l.requests) {
			switch {
			case w == r:
				ahead = true
			case w.phase != waiting:
				if w.service.device == d {
					after += w.service.whole(w.need)
				}
			case ahead:
				if (s.serves(w.need) || slices.ContainsFunc(l.candidates(w.need), func(t *service) bool {
					return t.device == d && !l.fits(t, w.need, after)
				})) && !yield(w) {
					return
				}
			}
		}
	}
}

// position tells waiting requests how many are ahead of them for the services they may have, those at work
// included, when that has changed.
func (l *ledger) position() {
	for i, r := range l.requests {
		if r.phase != waiting {
			continue
		}
		ahead := l.before(i)
		if ahead != r.ahead {
			r.ahead = ahead
			l.do(moved{r.request, ahead})
		}
	}
}

// before is how many requests are ahead of the i-th for the services it may have.
func (l *ledger) before(i int) int {
	n := 0
	for j, q := range l.requests {
		if r := l.requests[i]; j != i && q.line == r.line && (r.line != nil || q.need.equal(r.need)) && (j < i || q.phase != waiting) {
			n++
		}
	}
	return n
}
