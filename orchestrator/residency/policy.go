package residency

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// schedule decides all that can be decided now. It runs after every input, and what it decided
// before is in the ledger: there are no plans to keep in step.
func (l *ledger) schedule() {
	for _, d := range l.devices {
		l.shrink(d.Host)
		l.trim(d)
	}
	l.renew()
	l.stow()
	l.settle()
	line := l.place()
	for _, d := range l.devices {
		l.sweep(d)
	}
	l.prefetch(line)
	l.position()
}

// trim takes back room that was promised and cannot be made any more, because an eviction failed or
// a budget shrank, and evicts what a stage that joined holds beyond the budget, or other processes are first to have.
func (l *ledger) trim(d *device) {
	if l.free(d) >= 0 {
		return
	}
	for _, r := range l.requests {
		if r.phase == placed && r.service.device == d {
			l.unseat(r)
		}
	}
	used, others, future := l.used(d), l.others(d), l.future()
	for _, c := range l.pickMost(l.idle(d), -l.free(d), future) {
		l.evict(c, cause{}, OverBudget, "%s; %s bytes are held of a budget of %s%s", future.phrase(c), count(used), count(d.BudgetBytes), besides(others))
	}
}

// place finds services for waiting requests, in order of arrival, and returns the line: those that
// go on waiting.
func (l *ledger) place() (line []*request) {
	for _, r := range slices.Clone(l.requests) {
		if r.phase != waiting {
			continue
		}
		if s := l.tooSmall(r.need); s != nil {
			err := l.check(r.need)
			l.note(r.event(Refuse), s.device, "%v", err)
			l.end(r)
			l.do(refuse{r.request, err})
			continue
		}
		best := l.choose(r, line)
		if best == nil && r.try {
			l.end(r)
			l.do(refuse{r.request, errBusy})
			continue
		}
		if class, behind := l.defers(r, best); class != seated {
			line = append(line, r)
			l.waits(r, class, line, best)
			if behind != nil {
				l.seat(behind, &placement{service: best.service})
				l.settle()
			}
			continue
		}
		l.seat(r, best)
		l.settle()
	}
	return line
}

// seated is of no Wait.
const seated Class = 255

// defers is why r, which could be served as best says, if at all, goes on waiting; seated if it does not. behind is
// who takes its place at once, nil if nobody does.
func (l *ledger) defers(r *request, best *placement) (why Class, behind *request) {
	switch {
	case best == nil:
		return 0, nil
	case r.try:
		return seated, nil
	case best.cold > stowed: // else next to nothing is to be loaded
		if l.kept(r, best.service) {
			return Grouped, nil
		}
		if behind = l.follower(r, best.service); behind != nil {
			return Grouped, behind
		}
	}
	return seated, nil
}

// waits records that r waits, once for each class.
func (l *ledger) waits(r *request, class Class, line []*request, p *placement) {
	if slices.Contains(r.told, class) {
		return
	}
	r.told = append(r.told, class)
	switch class {
	case Grouped:
		s := p.service
		l.note(r.event(Wait), s.device, "%v would have to load; who finds its weights there goes first, %d of %d times", r.need, r.overtaken, r.allowance).Class = class
	default:
		d, why := l.obstacle(line)
		l.note(r.event(Wait), d, "%s", why)
	}
}

// placement is a way to serve a request.
type placement struct {
	service *service
	victims []*component
	wanted  int64 // bytes of victims that have a known next use
	total   int64 // bytes of all victims
	cold    cold
}

// cheaper is the better of two placements, the first if they are equal; nil is none. What is free and
// resident comes first, then what loads without an eviction, then the cheapest eviction.
func (p *placement) cheaper(q *placement) *placement {
	switch {
	case p == nil:
		return q
	case q == nil || cmp.Or(cmp.Compare(p.wanted, q.wanted), cmp.Compare(p.total, q.total), cmp.Compare(p.cold, q.cold)) <= 0:
		return p
	}
	return q
}

// cold is how far a component is from being resident.
type cold uint8

const (
	hot    cold = iota
	near        // loading, or to be loaded again to be sure
	stowed      // warm
	absent
	leaving // being evicted: it has to be gone before it can come back
)

func (s *service) cold(model string) cold {
	c := s.find(model)
	switch {
	case c == nil || c.state == Absent:
		return absent
	case c.state == Evicting:
		return leaving
	case c.state == Warm:
		return stowed
	case c.state == Loading || c.doubtful:
		return near
	}
	return hot
}

// choose is the best way to serve r now, nil if there is none. line is who waits ahead of it.
func (l *ledger) choose(r *request, line []*request) (best *placement) {
	for _, s := range l.candidates(r.need) {
		d := s.device
		if s.holder != nil || d.crowded || !l.fits(s, r.need, 0) || l.overtakes(r, s) {
			continue
		}
		p := &placement{service: s, cold: s.cold(r.need.Model)}
		short, own := s.missing(r.need)-l.free(d), s.present(r.need.Model)
		if own != nil && own.suits(r.need) {
			own = nil
		}
		if own != nil { // it goes too
			if own.doubtful && !l.retry {
				continue
			}
			short, p.cold = short-own.bytes, leaving
		}
		if r.try && (short+l.evicting(d) > 0 || p.cold == leaving) {
			continue // it would have to wait for an eviction
		}
		var enough bool
		idle := slices.DeleteFunc(l.idle(d), func(c *component) bool {
			return c.service == s && c.model == r.need.Model || l.young(c, r.asked) || slices.ContainsFunc(line, func(w *request) bool {
				return c.service.serves(w.need) && c.model == w.need.Model
			})
		})
		if short > 0 {
			if p.victims, enough = l.makeRoom(r, s, short, idle); !enough {
				continue
			}
		}
		if own != nil {
			p.victims = append(p.victims, own)
		}
		if len(p.victims) > 0 { // most that wait find no stage free, and need not know the future
			future := l.future()
			for _, c := range p.victims {
				p.total += c.bytes
				if future.next(c) != never {
					p.wanted += c.bytes
				}
			}
		}
		best = best.cheaper(p)
	}
	return best
}

// seat gives r its service and starts the evictions that make room.
func (l *ledger) seat(r *request, p *placement) {
	future, missing := l.future(), p.service.missing(r.need)
	for _, c := range p.victims {
		if c.service == p.service && c.model == r.need.Model {
			l.evict(c, r.cause, ForRequest, "its %s bytes leave too little for %s of scratch; it is to be loaded within %s", count(c.bytes), count(r.need.Footprint.ScratchBytes), count(r.need.Footprint.WeightsBytes))
			continue
		}
		l.evict(c, r.cause, ForRequest, "%s; %v needs %s bytes", future.phrase(c), r.need, count(missing))
	}
	l.overtake(r, p.service)
	r.phase, r.service, r.ahead = placed, p.service, -1
	p.service.holder = r
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

// candidates are the services that could ever serve n, if their devices are large enough, by id.
func (l *ledger) candidates(n Need) []*service {
	var out []*service
	for _, s := range l.services {
		if s.serves(n) {
			out = append(out, s)
		}
	}
	others := func(s *service) bool {
		c := s.find(n.Model)
		return n.Identity != "" && c != nil && c.edition.Identity != "" && c.edition.Identity != n.Identity
	}
	if slices.IndexFunc(out, func(s *service) bool { return !others(s) }) >= 0 {
		out = slices.DeleteFunc(out, others)
	}
	return out
}

func (s *service) serves(n Need) bool { return s.has(n) && !s.silent }

// has is serves, if it answered.
func (s *service) has(n Need) bool {
	return s.kind == n.Kind && !s.draining && slices.Contains(s.models, n.Model)
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
	return stage.DoesNotFit(n.Kind, n.Model, n.bytes(), max(s.device.BudgetBytes-l.pinnedBeside(s, n), 0), s.device.BudgetBytes)
}

// obstacle says in words what the last of the line waits for, and on which device if on one.
func (l *ledger) obstacle(line []*request) (*device, string) {
	last := len(line) - 1
	r, line := line[last], line[:last]
	candidates := l.candidates(r.need)
	if len(candidates) == 0 {
		return l.unanswered(r.need)
	}
	if i := slices.IndexFunc(line, func(w *request) bool { return w.need.Kind == r.need.Kind }); i >= 0 {
		return candidates[0].device, fmt.Sprintf("others are ahead for the %v", r.need.Kind)
	}
	i := slices.IndexFunc(candidates, func(s *service) bool { return s.holder == nil })
	if i < 0 {
		return candidates[0].device, fmt.Sprintf("every %v is at work", r.need.Kind)
	}
	s := candidates[i]
	if l.overtakes(r, s) {
		return s.device, fmt.Sprintf("%v needs %s bytes, and those who are ahead need them too", r.need, count(s.whole(r.need)))
	}
	if why := l.obstructed(r, s); why != "" {
		return s.device, why
	}
	return s.device, fmt.Sprintf("%v needs %s bytes, and they are in use", r.need, count(s.missing(r.need)))
}

// position tells waiting requests how many are ahead of them for their kind of stage, those at work
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

// before is how many requests are ahead of the i-th for its kind of stage.
func (l *ledger) before(i int) int {
	n := 0
	for j, q := range l.requests {
		if j != i && q.need.Kind == l.requests[i].need.Kind && (j < i || q.phase != waiting) {
			n++
		}
	}
	return n
}
