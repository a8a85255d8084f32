package residency

import (
	"cmp"
	"math/bits"
	"slices"
	"time"
)

// The bounds of a plan, which keep a decision within a millisecond: uses looked ahead, sets of components kept in
// view, and ways to make room that are tried for each of them. Within them a plan is the best there is.
const (
	planUses  = 24
	planWidth = 16
	planWays  = 16
	planParts = 64 // components, which are bits
)

// plan is weighted caching with sizes for the uses known of the future: each wants its components in memory, and
// what is there never exceeds the budget, less the scratch of the use. It is solved like the oracle of internal/baseline,
// by dynamic programming over the sets in memory; what the uses leave unknown is told by how popular components are.
type plan struct {
	parts []part // the one to be kept first
	uses  []planned
}

// part is a component of the device.
type part struct {
	service *service
	name    string
	bytes   int64
	cost    float64 // seconds of a load
	tail    float64 // seconds that it is expected to cost if it is absent in the end

	away     float64 // needs until it is used
	lastUsed time.Time
}

// planned is a use of a set of parts.
type planned struct {
	set  uint64
	room int64 // for bystanders, in bytes
}

// way is a set of parts in memory, and what it takes to come to it.
type way struct {
	set     uint64
	cost    float64
	whole   float64 // with what absent parts cost in the end
	victims uint64  // that begin it
}

// makeRoom picks of the idle components those whose eviction lets r have short more bytes at s with the least loading
// from then on. It reports whether there are enough.
func (l *ledger) makeRoom(r *request, s *service, short int64, idle []*component) (victims []*component, enough bool) {
	if short > 0 && total(idle) < short {
		return nil, false
	}
	future := l.future()
	p, ok := l.lookAhead(r, s, future)
	if l.rival.Order != nil || l.rival.Greedy || !ok {
		return l.pick(idle, short, future)
	}
	best := p.evict(idle, short)
	for i := range p.parts {
		if best.victims>>i&1 == 1 {
			victims = append(victims, p.parts[i].service.find(p.parts[i].name))
		}
	}
	slices.Reverse(victims) // the one that is missed last first
	return victims, true
}

// evict is the best way to have short more bytes, by the eviction of idle components.
func (p *plan) evict(idle []*component, short int64) way {
	var held, movable uint64
	for i, part := range p.parts {
		c := part.service.find(part.name)
		if c == nil || c.state != Loading && c.state != Resident {
			continue
		}
		held |= 1 << i
		if slices.Contains(idle, c) {
			movable |= 1 << i
		}
	}
	return p.solve(held, movable, total(idle)-max(short, 0))
}

// lookAhead lays out the device of s and the uses to come, that of r at s first. It reports false when there are too
// many components.
func (l *ledger) lookAhead(r *request, s *service, future uses) (p plan, ok bool) {
	d := s.device
	at := func(s *service, name string) int {
		return slices.IndexFunc(p.parts, func(q part) bool { return q.name == name && (s == nil || s == q.service) })
	}
	add := func(s *service, name string, bytes int64) {
		c := s.find(name)
		switch {
		case c == nil:
			c = &component{service: s, name: name, bytes: bytes}
		case c.bytes == 0:
			away := *c
			away.bytes, c = bytes, &away
		}
		p.parts = append(p.parts, part{service: s, name: name, bytes: c.bytes, cost: l.reload(c)})
	}
	for c := range l.on(d) {
		if c.bytes > 0 {
			add(c.service, c.name, c.bytes)
		}
	}
	// where is the service of a use: its own, else the one that holds the first of its components, else any that serves it.
	where := func(u use) *service {
		if u.at != nil {
			return u.at
		}
		if i := at(nil, u.need.Components[0]); i >= 0 && p.parts[i].service.knows(u.need) {
			return p.parts[i].service
		}
		return one(l.services, func(t *service) bool { return t.device == d && t.serves(u.need) })
	}
	var to []use
	for _, u := range append(uses{{need: r.need, at: s, request: r}}, future...) {
		if len(to) > 0 && u.request == r || u.at != nil && u.at.device != d || len(to) == planUses {
			continue
		}
		if u.at = where(u); u.at == nil {
			continue
		}
		for i, name := range u.need.Components {
			if at(u.at, name) < 0 {
				add(u.at, name, u.at.takes(u.need).Weights[i].Bytes)
			}
		}
		to = append(to, u)
	}
	l.rank(p.parts, to, future)
	for _, u := range to {
		var set uint64
		for _, name := range u.need.Components {
			set |= 1 << at(u.at, name)
		}
		p.uses = append(p.uses, planned{set, d.BudgetBytes - l.others(d) - u.at.takes(u.need).ScratchBytes - p.size(set)})
	}
	return p, len(p.parts) <= planParts
}

// rank sorts parts by their next use, and tells what it costs to be without them after the planned uses: the whole
// load where a use is known, else half of it, and the less the less popular they are.
func (l *ledger) rank(parts []part, planned, future uses) {
	most := 1
	for _, s := range l.services {
		for _, c := range s.components {
			most = max(most, c.runs)
		}
	}
	for i, q := range parts {
		c := q.service.component(q.name)
		parts[i].away, parts[i].lastUsed = l.away(c, future), c.lastUsed
		parts[i].tail = q.cost / 2 * float64(max(c.runs, 1)) / float64(most)
		if n := future.next(c); n != never && n >= len(planned) {
			parts[i].tail = q.cost
		}
	}
	slices.SortStableFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.away, b.away), b.lastUsed.Compare(a.lastUsed))
	})
}

// solve is the best way from what is held: of the movable parts, no more than room bytes stay for the first use.
func (p *plan) solve(held, movable uint64, room int64) way {
	var front []way
	own := p.uses[0].set
	p.fill(held&^movable|own, movable, room, func(set uint64) {
		front = append(front, p.way(set, p.cost(own&^held), movable&^set))
	})
	front = p.narrow(front)
	for _, u := range p.uses[1:] {
		var next []way
		for _, w := range front {
			cost := w.cost + p.cost(u.set&^w.set)
			p.fill(u.set, w.set&^u.set, u.room, func(set uint64) { next = append(next, p.way(set, cost, w.victims)) })
		}
		if len(next) > 0 { // else nothing could serve the use, which will be refused
			front = p.narrow(next)
		}
	}
	return slices.MinFunc(front, way.compare)
}

func (p *plan) way(set uint64, cost float64, victims uint64) way {
	w := way{set, cost, cost, victims}
	for i := range p.parts {
		if set>>i&1 == 0 {
			w.whole += p.parts[i].tail
		}
	}
	return w
}

func (w way) compare(v way) int { return cmp.Compare(w.whole, v.whole) }

// narrow leaves the best ways, one for each set, and none that is of no use beside a cheaper one: from that, what is
// missing could be loaded when it is used.
func (p *plan) narrow(front []way) []way {
	slices.SortStableFunc(front, way.compare)
	var kept []way
	for _, w := range front {
		if len(kept) == planWidth {
			break
		}
		if !slices.ContainsFunc(kept, func(k way) bool { return k.cost+p.cost(w.set&^k.set) <= w.cost }) {
			kept = append(kept, w)
		}
	}
	return kept
}

func (p *plan) size(set uint64) (sum int64) {
	for ; set != 0; set &= set - 1 {
		sum += p.parts[bits.TrailingZeros64(set)].bytes
	}
	return sum
}

func (p *plan) cost(set uint64) (sum float64) {
	for ; set != 0; set &= set - 1 {
		sum += p.parts[bits.TrailingZeros64(set)].cost
	}
	return sum
}

// fill yields kept with the largest parts of others that fit into room, planWays of them at most, those first that keep
// what is used next.
func (p *plan) fill(kept, others uint64, room int64, yield func(uint64)) {
	ways := planWays
	var fill func(kept, others uint64, room int64)
	fill = func(kept, others uint64, room int64) {
		switch {
		case room < 0 || ways == 0:
			return
		case p.size(others) <= room:
			ways--
			yield(kept | others)
			return
		}
		first := others & -others
		fill(kept|first, others&^first, room-p.parts[bits.TrailingZeros64(first)].bytes)
		fill(kept, others&^first, room)
	}
	fill(kept, others, room)
}
