package residency

import (
	"cmp"
	"slices"
)

// schedule decides all that can be decided now. It runs after every input, and what it decided
// before is in the ledger: there are no plans to keep in step.
func (l *ledger) schedule() {
	for _, d := range l.devices {
		l.shrink(d.Host)
		l.trim(d)
	}
	l.renew()
	l.startWarming()
	l.reservePlaced()
	line := l.place()
	for _, d := range l.devices {
		l.sweep(d)
	}
	l.prefetch(line)
	l.position()
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
				l.reservePlaced()
			}
			continue
		}
		l.seat(r, best)
		l.reservePlaced()
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
	case best.cold > warm: // else next to nothing is to be loaded
		if l.saved(r, best.service) {
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
	if class == Grouped {
		s := p.service
		l.note(r.event(Wait), s.device, "%v would have to load; who finds its weights there goes first, %d of %d times", r.need, r.overtaken, r.allowance).Class = class
		return
	}
	d, why := l.obstacle(line)
	l.note(r.event(Wait), d, "%s", why)
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
	hot  cold = iota
	near      // loading, or to be loaded again to be sure
	warm      // warm
	absent
	leaving // being evicted: it has to be gone before it can come back
)

// cold is that of the component of n that is farthest from being resident.
func (s *service) cold(n Need) (most cold) {
	for _, name := range n.Components {
		most = max(most, s.find(name).cold())
	}
	return most
}

func (c *component) cold() cold {
	switch {
	case c == nil || c.state == Absent:
		return absent
	case c.state == Evicting:
		return leaving
	case c.state == Warm:
		return warm
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
		p := &placement{service: s, cold: s.cold(r.need)}
		short, own := s.missing(r.need)-l.free(d), s.outgrown(r.need) // which go too
		if !l.retry && slices.ContainsFunc(own, func(c *component) bool { return c.doubtful }) {
			continue
		}
		if len(own) > 0 {
			short, p.cold = short-total(own), leaving
		}
		if r.try && (short+l.evicting(d) > 0 || p.cold == leaving) {
			continue // it would have to wait for an eviction
		}
		var enough bool
		idle := slices.DeleteFunc(l.idle(d), func(c *component) bool {
			return c.service == s && r.need.has(c.name) || l.young(c, r.asked) || slices.ContainsFunc(line, func(w *request) bool {
				return w.need.has(c.name) && c.service.serves(w.need)
			})
		})
		if short > 0 {
			if p.victims, enough = l.makeRoom(r, s, short, idle); !enough {
				continue
			}
		}
		p.victims = append(p.victims, own...)
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
	future, missing, f := l.future(), p.service.missing(r.need), p.service.takes(r.need)
	for _, c := range p.victims {
		if i := slices.Index(r.need.Components, c.name); i >= 0 && c.service == p.service {
			l.evict(c, r.cause, ForRequest, "its %s bytes leave too little for %s of scratch; it is to be loaded within %s", count(c.bytes), count(f.ScratchBytes), count(f.Weights[i].Bytes))
			continue
		}
		l.evict(c, r.cause, ForRequest, "%s; %v needs %s bytes", future.phrase(c), r.need, count(missing))
	}
	l.overtake(r, p.service)
	r.phase, r.service, r.ahead = placed, p.service, -1
	p.service.holder = r
}
