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
// that need the same weights follow each other. The bound: a request that had n ahead of it for its kind of
// stage when it was asked for is overtaken at most (factor-1) * (n+1) times. So it waits for at most factor
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
	return s.cold(n.Model) == hot && l.free(d)-l.evicting(d) >= s.missing(n)
}

// yields tells whether r goes before w at s, and why w lets it: there is nothing to load for r.
func (l *ledger) yields(w *request, to Need, at *service) bool {
	return w.overtaken < w.allowance && l.ready(to, at) && (!at.serves(w.need) || at.cold(w.need.Model) != hot)
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

// kept tells whether r leaves s, where it would have to load, to the job that has just worked there and is about
// to ask for the same again.
func (l *ledger) kept(r *request, s *service) bool {
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

// expect notes that a job which has just ended a turn will ask for the same at once: none of the turns that it
// announced before that one is of an earlier kind, which would have to be worked off first.
func (l *ledger) expect(r *request, next []Need) {
	s := r.service
	s.expected = expectation{}
	for _, n := range next {
		switch {
		case n.Kind == r.need.Kind && n.Model == r.need.Model:
			s.expected = expectation{r.job, n, l.now.Add(moment)}
			return
		case n.Kind <= r.need.Kind:
			return
		}
	}
}
