package residency

import (
	"cmp"
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// prefetch loads announced needs ahead while something computes: the nearest first, one at a time on
// a device, and not while a request loads there. It evicts nothing that has a known next use or that would
// stay if it were not in such a hurry, and leaves room for the line and for the scratch of nearer needs. A need that finds no room closes its
// devices, so that a farther one cannot get in its way. What is prefetched is idle: whoever needs
// its bytes evicts it.
func (l *ledger) prefetch(line []*request) {
	l.prune()
	if l.rival.NoPrefetch || !slices.ContainsFunc(l.requests, func(r *request) bool { return r.phase == granted }) {
		return
	}
	closed, room := l.loading(), l.room(line)
	scratch := map[*device]int64{} // the most that a nearer need takes
	for _, p := range l.promises() {
		candidates := slices.DeleteFunc(l.candidates(p.Need), func(s *service) bool {
			return !s.device.holds(s.whole(p.Need)) || slices.ContainsFunc(p.Components, func(name string) bool {
				c := s.find(name)
				return c != nil && c.failed
			})
		})
		at := slices.IndexFunc(candidates, func(s *service) bool { return s.cold(p.Need) < warm })
		if at >= 0 {
			s := candidates[at]
			scratch[s.device] = max(scratch[s.device], s.takes(p.Need).ScratchBytes)
			continue
		}
		var best *placement
		for _, s := range candidates {
			if d := s.device; !closed[d] && s.cold(p.Need) < leaving {
				best = best.cheaper(l.ahead(p.Need, s, room[d]+scratch[d]))
			}
		}
		if best == nil {
			for _, s := range candidates {
				closed[s.device] = true
			}
			continue
		}
		d := best.service.device
		closed[d] = true
		l.fetch(p, best, room[d]+scratch[d])
	}
}

// away are the components of n that are neither at s nor on their way there, and what they take.
func (s *service) away(n Need) (away []stage.Weights, bytes int64) {
	for i, w := range s.takes(n).Weights {
		if w.Component = n.Components[i]; s.find(w.Component).cold() >= warm {
			away, bytes = append(away, w), bytes+w.Bytes
		}
	}
	return away, bytes
}

// ahead is how n could be prefetched at s with so many bytes left, nil if it cannot. It evicts only what would go for n as
// well if that waited for those at work, who give back their scratch and can be evicted then, and nothing that takes
// longer to load again than n does: loading ahead must not be paid for by loading again.
func (l *ledger) ahead(n Need, s *service, leave int64) *placement {
	d, future := s.device, l.future()
	away, bytes := s.away(n)
	high := l.policy.HighWatermark
	if high > 0 && d.BudgetBytes > 0 && float64(l.used(d)+bytes) > high*float64(d.BudgetBytes) {
		return nil
	}
	p := &placement{service: s}
	if s.holder != nil {
		p.cold = leaving // it would load while it computes: of equals, the other is better
	}
	short := bytes + leave - l.free(d)
	if short <= 0 {
		return p
	}
	idle, later := l.idle(d), s.missing(n)-l.free(d)
	for _, r := range l.requests {
		if r.phase == granted && r.service.device == d {
			later -= r.footprint().ScratchBytes
			idle = slices.AppendSeq(idle, r.components)
		}
	}
	idle = slices.DeleteFunc(idle, func(c *component) bool { return c.service == s && n.has(c.name) })
	p.victims, _ = l.makeRoom(&request{need: n}, s, later, idle)
	for _, c := range p.victims {
		if c.holder() != nil || future.next(c) != never || l.young(c, l.now) {
			return nil
		}
		p.total += c.bytes
	}
	var load float64
	for _, w := range away {
		load += float64(w.Bytes) * l.reloadByte(cmp.Or(s.find(w.Component), &component{service: s}))
	}
	if p.total < short || l.reloads(p.victims) > load {
		return nil
	}
	return p
}

// fetch makes room for a prefetch, or starts it with the first component if the room for all is there.
func (l *ledger) fetch(p promise, at *placement, leave int64) {
	d, future := at.service.device, l.future()
	away, bytes := at.service.away(p.Need)
	for _, c := range at.victims {
		l.evict(c, cause{job: p.job}, ForPrefetch, "%s; prefetching %v needs %s bytes", future.phrase(c), p.Need, count(bytes))
	}
	if l.free(d)-l.evicting(d) < bytes+leave {
		return // until the evictions are done
	}
	c := at.service.component(away[0].Component)
	c.state, c.bytes, c.prefetch, c.op, c.since = Loading, away[0].Bytes, true, l.nextOp(), l.now
	l.mark(d)
	l.record(Prefetch, c, cause{job: p.job}, c.bytes, "%s, and there is room%s", future.phrase(c), streaming(away[0], at.service.takes(p.Need).ScratchBytes, d))
	l.do(startLoad{op: c.op, at: at.service.process(), name: c.name, bytes: c.bytes, warm: c.fromWarm(), prefetch: true})
}

// prune stops prefetches that nobody will use.
func (l *ledger) prune() {
	for _, s := range l.services {
		for _, c := range s.components {
			if c.state != Loading || s.silent || c.holder() != nil || l.policy.pinned(c) {
				continue
			}
			if future := l.future(); future.next(c) == never {
				l.evict(c, cause{}, Unneeded, "%s, so it need not be loaded", future.phrase(c))
			}
		}
	}
}

// loading are the devices where something loads or waits for room, or where it is not known how much there is.
func (l *ledger) loading() map[*device]bool {
	out := map[*device]bool{}
	for _, d := range l.devices {
		out[d] = d.crowded
		for c := range l.on(d) {
			out[d] = out[d] || c.state == Loading
		}
	}
	for _, r := range l.requests {
		if r.phase == placed {
			out[r.service.device] = true
		}
	}
	return out
}

// room is what the first of those who wait for each other will take.
func (l *ledger) room(line []*request) map[*device]int64 {
	out := map[*device]int64{}
	seen := map[*service]bool{}
	for _, w := range line {
		if seen[w.line] {
			continue
		}
		seen[w.line] = true
		most := map[*device]int64{}
		for _, s := range l.candidates(w.need) {
			d := s.device
			out[d] -= most[d]
			most[d] = max(most[d], s.missing(w.need))
			out[d] += most[d]
		}
	}
	return out
}
