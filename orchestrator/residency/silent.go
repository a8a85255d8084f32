package residency

import "fmt"

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
		c, since := r.component(), r.since
		c.prefetch = true
		r.losses-- // nothing is lost
		l.unseat(r)
		e := l.record(Release, c, r.cause, r.need.Footprint.ScratchBytes, "the scratch of %v is not used: %s, which loads it, does not answer", c, s.id)
		e.Class, e.Took = WorkWithdrawn, l.now.Sub(since)
	}
}

// Silent tells that a service does not answer although it may well live: it keeps its bytes and gets no
// new work until it answers (see Join and Measure) or leaves. Who is at work there stays so; who waits for a load there
// may have another service.
func (k *Keeper) Silent(id StageID) { k.tell(silenced{id, true}) }

// unanswered says in words that a need waits for a service that is silent, nil and empty if none has it.
func (l *ledger) unanswered(n Need) (*device, string) {
	for _, s := range l.services {
		if s.silent && s.has(n) {
			return s.device, fmt.Sprintf("%s, which has %v, does not answer; what it holds counts until it does or is gone", s.id, n)
		}
	}
	return nil, fmt.Sprintf("no service is known that has %v", n)
}
