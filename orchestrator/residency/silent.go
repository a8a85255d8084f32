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

// turnAway lets a request for which room is being made look for another service, if this one does not serve it any more.
func (l *ledger) turnAway(s *service) {
	if r := s.holder; r != nil && r.phase == placed && !s.serves(r.need) {
		l.unseat(r)
	}
}

// Silent tells that a service does not answer although it may well live: it keeps its bytes and gets no
// new work until it answers (see Join and Measure) or leaves.
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
