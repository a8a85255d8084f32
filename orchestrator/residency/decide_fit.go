package residency

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// candidates are the services that could ever serve n, if their devices are large enough, by id.
func (l *ledger) candidates(n Need) []*service {
	var out []*service
	for _, s := range l.services {
		if s.serves(n) {
			out = append(out, s)
		}
	}
	others := func(s *service) bool {
		for name, identity := range n.Identities {
			if c := s.find(name); identity != "" && c != nil && c.edition.Identity != "" && c.edition.Identity != identity {
				return true
			}
		}
		return false
	}
	if slices.IndexFunc(out, func(s *service) bool { return !others(s) }) >= 0 {
		out = slices.DeleteFunc(out, others)
	}
	return out
}

func (s *service) free() bool { return s.holder == nil }

func (s *service) serves(n Need) bool { return !s.silent && !s.draining && s.knows(n) }

// knows tells whether s can load all of n, and it is known what that takes.
func (s *service) knows(n Need) bool {
	if len(n.Components) == 0 || len(s.takes(n).Weights) != len(n.Components) {
		return false
	}
	for _, name := range n.Components {
		if !slices.Contains(s.names, name) {
			return false
		}
	}
	return true
}

// tooSmall is the service with the most room for n when even that cannot hold it, else nil.
func (l *ledger) tooSmall(n Need) (largest *service) {
	room := func(s *service) int64 { return s.device.BudgetBytes - l.pinnedBeside(s, n) }
	for _, s := range l.candidates(n) {
		if l.fits(s, n, 0) {
			return nil
		}
		if largest == nil || room(s) > room(largest) {
			largest = s
		}
	}
	return largest
}

// check is the error of a need that can never be met, nil if it can or if nobody knows.
func (l *ledger) check(n Need) error {
	s := l.tooSmall(n)
	if s == nil {
		return nil
	}
	return stage.DoesNotFit(n.Kind, stage.ModelOf(n.first()), bytes(s.takes(n)), max(s.device.BudgetBytes-l.pinnedBeside(s, n), 0), s.device.BudgetBytes)
}

// obstacle says in words what the last of the line waits for, and on which device if on one.
func (l *ledger) obstacle(line []*request) (*device, string) {
	last := len(line) - 1
	r, line := line[last], line[:last]
	candidates := l.candidates(r.need)
	if len(candidates) == 0 {
		return l.unanswered(r.need)
	}
	candidates = slices.DeleteFunc(candidates, func(s *service) bool { return !l.fits(s, r.need, 0) })
	if slices.ContainsFunc(line, func(w *request) bool { return w.line == r.line }) {
		return candidates[0].device, fmt.Sprintf("others are ahead for the %v", r.need.Kind)
	}
	s := one(candidates, (*service).free)
	if s == nil {
		return candidates[0].device, fmt.Sprintf("every %v is at work", r.need.Kind)
	}
	if l.overtakes(r, s) {
		return s.device, fmt.Sprintf("%v needs %s bytes, and those who are ahead need them too", r.need, count(s.whole(r.need)))
	}
	if why := l.obstructed(r, s); why != "" {
		return s.device, why
	}
	return s.device, fmt.Sprintf("%v needs %s bytes, and they are in use", r.need, count(s.missing(r.need)))
}

// largest is the device with the largest budget of those that serve n, the zero one if there is none. ModelDoesNotFit if n
// fits none of them.
func (l *ledger) largest(n Need) (Device, error) {
	all := l.candidates(n)
	if len(all) == 0 {
		return Device{}, nil
	}
	room := func(s *service) int64 { return cmp.Or(s.device.BudgetBytes, math.MaxInt64) }
	largest := slices.MaxFunc(all, func(a, b *service) int { return cmp.Compare(room(a), room(b)) })
	d := largest.device.Device
	if slices.ContainsFunc(all, func(s *service) bool { return s.device.holds(bytes(s.takes(n))) }) {
		return d, nil
	}
	return d, stage.DoesNotFit(n.Kind, stage.ModelOf(n.first()), bytes(largest.takes(n)), d.BudgetBytes, d.BudgetBytes)
}

// pinned tells whether c is never to be evicted.
func (p Policy) pinned(c *component) bool {
	return slices.ContainsFunc(p.Never, func(s Selector) bool { return s.names(c) })
}

// pinnedBeside is the bytes that never leave the device of s, but for those that n takes there itself.
func (l *ledger) pinnedBeside(s *service, n Need) (sum int64) {
	for c := range l.on(s.device) {
		if l.policy.pinned(c) && (c.service != s || !n.has(c.name)) {
			sum += c.bytes
		}
	}
	return sum
}

// fits tells whether n could be served at s beside so many bytes and what never leaves.
func (l *ledger) fits(s *service, n Need, beside int64) bool {
	return s.device.holds(s.whole(n) + beside + l.pinnedBeside(s, n))
}

// obstructed says in words that the bytes a request needs are other processes'; empty if they are not.
func (l *ledger) obstructed(r *request, s *service) string {
	d, missing := s.device, s.missing(r.need)
	others := l.others(d)
	switch {
	case d.crowded:
		return fmt.Sprintf("%v needs %s bytes, which other processes on the device took before it; how many they hold is being asked", r.need, count(missing))
	case others == 0:
		return ""
	}
	return fmt.Sprintf("%v needs %s bytes, and other processes on the device hold %s of its budget of %s and are first to have %s more: %s would have to go",
		r.need, count(missing), count(d.foreign), count(d.BudgetBytes), count(others-d.foreign), count(max(0, missing-max(0, l.free(d)))))
}

// besides says in words what others have of a budget.
func besides(others int64) string {
	if others == 0 {
		return ""
	}
	return fmt.Sprintf(", and %s are other processes' or theirs to have", count(others))
}

// want is what a service is to tell the other processes of its device: since when the oldest request here is there, and, if
// the first that waits would run at the service, what it lacks when all that is idle here has made room.
func (l *ledger) want(id StageID) stage.Want {
	s := l.service(id)
	if s == nil {
		return stage.Want{}
	}
	w := stage.Want{Since: l.first(s.device)}
	for _, r := range l.requests {
		if r.phase != waiting {
			continue
		}
		if one(l.candidates(r.need), (*service).free) != s {
			break
		}
		w.Bytes = s.missing(r.need)
		for _, c := range l.idle(s.device) {
			if c.service != s || !r.need.has(c.name) {
				w.Bytes -= c.bytes
			}
		}
		w.Bytes = max(0, w.Bytes)
		break
	}
	return w
}

// unanswered says in words that a need waits for a service that is silent, nil and empty if none has it.
func (l *ledger) unanswered(n Need) (*device, string) {
	if s := one(l.services, func(s *service) bool { return s.silent && !s.draining && s.knows(n) }); s != nil {
		return s.device, fmt.Sprintf("%s, which has %v, does not answer; what it holds counts until it does or is gone", s.id, n)
	}
	return nil, fmt.Sprintf("no service is known that has %v", n)
}
