package residency

import (
	"cmp"
	"slices"
	"time"
)

// idle are the components of a device that neither a request nor the policy pins, and whose services answer, in order.
func (l *ledger) idle(d *device) []*component {
	var out []*component
	for c := range l.on(d) {
		if (c.state == Loading || c.state == Resident) && c.bytes > 0 && c.holder() == nil && !c.service.silent && (l.retry || !c.doubtful) && !l.policy.pinned(c) {
			out = append(out, c)
		}
	}
	return out
}

// total is the bytes of components.
func total(of []*component) (sum int64) {
	for _, c := range of {
		sum += c.bytes
	}
	return sum
}

// pickMost is pick, of all of them if they are not enough.
func (l *ledger) pickMost(idle []*component, short int64, future uses) []*component {
	victims, _ := l.pick(idle, min(short, total(idle)), future)
	return victims
}

// pick picks of idle components some of at least short bytes, none of which is in vain, and reports
// whether there are enough. Those of the least loss go first; among equals the smallest that is enough, else the
// largest; then the least recently used.
func (l *ledger) pick(idle []*component, short int64, future uses) (chosen []*component, enough bool) {
	if short <= 0 {
		return nil, true
	}
	loss := map[*component]float64{}
	for _, c := range idle {
		loss[c] = l.loss(c, future)
	}
	for short > 0 && len(idle) > 0 {
		first := slices.MinFunc(idle, func(a, b *component) int {
			if l.rival.Order != nil {
				return l.rival.Order(a.idle(), b.idle())
			}
			order := cmp.Compare(a.bytes, b.bytes)
			if min(a.bytes, b.bytes) < short { // the larger is enough, or nearer to it
				order = -order
			}
			return cmp.Or(cmp.Compare(loss[a], loss[b]), order, a.lastUsed.Compare(b.lastUsed))
		})
		chosen = append(chosen, first)
		short -= first.bytes
		idle = slices.DeleteFunc(slices.Clone(idle), func(c *component) bool { return c == first })
	}
	if short > 0 {
		return nil, false
	}
	// What came later may make what came before unnecessary; the dearest is spared first.
	for i := len(chosen) - 1; i >= 0; i-- {
		if chosen[i].bytes <= -short {
			short += chosen[i].bytes
			chosen = slices.Delete(chosen, i, i+1)
		}
	}
	return chosen, true
}

func (c *component) idle() Idle {
	return Idle{Bytes: c.bytes, Loaded: uint64(c.op), LastUsed: c.lastUsed}
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

// young tells whether c is to stay because it was loaded only just, for one that has waited since then, and asks for a
// step when that ends.
func (l *ledger) young(c *component, since time.Time) bool {
	until := c.loaded.Add(l.policy.MinResidency)
	if c.state != Resident || !l.now.Before(until) || since.Add(l.policy.MinResidency).Compare(l.now) <= 0 {
		return false
	}
	l.by(until)
	l.by(since.Add(l.policy.MinResidency))
	return true
}

// sweep evicts what the policy does not let stay, though nobody needs its room.
func (l *ledger) sweep(d *device) {
	if p := l.policy; len(p.AfterUse) == 0 && p.IdleTTL == 0 && p.HighWatermark == 0 {
		return
	}
	future := l.future()
	asked := slices.IndexFunc(future, func(u use) bool { return u.request == nil })
	if asked < 0 {
		asked = len(future)
	}
	spare := func(c *component) bool {
		x := c.service.expected
		coming := x.need.has(c.name) && l.now.Before(x.until)
		if coming {
			l.by(x.until)
		}
		return coming || future.next(c) < asked
	}
	for _, c := range l.idle(d) {
		p := l.policy
		left := c.lastUsed.Add(p.IdleTTL)
		switch {
		case c.state != Resident || spare(c):
		case c.spent && slices.ContainsFunc(p.AfterUse, func(s Selector) bool { return s.names(c) }):
			l.evict(c, cause{}, AfterUse, "%v was used, and is not to stay after that", c)
		case p.IdleTTL == 0 || future.next(c) != never:
		case l.now.Before(left):
			l.by(left)
		default:
			l.evict(c, cause{}, TooLongIdle, "nobody has used %v for %v", c, p.IdleTTL)
		}
	}
	for c := range l.on(d) {
		left := c.lastUsed.Add(l.policy.IdleTTL)
		switch {
		case l.policy.IdleTTL == 0 || !l.droppable(c) || future.next(c) != never:
		case l.now.Before(left):
			l.by(left)
		default:
			l.discard(c, TooLongIdle, "nobody has used %v for %v", c, l.policy.IdleTTL)
		}
	}
	budget, inUse := float64(d.BudgetBytes), l.used(d)-l.evicting(d)
	if high := l.policy.HighWatermark; high == 0 || d.BudgetBytes == 0 || float64(inUse) <= high*budget {
		return
	}
	excess := inUse - int64(l.policy.LowWatermark*budget)
	idle := slices.DeleteFunc(l.idle(d), func(c *component) bool { return spare(c) || l.young(c, l.now) })
	for _, c := range l.pickMost(idle, excess, future) {
		l.evict(c, cause{}, AboveWatermark, "%s; %s bytes are in use, more than %v of %s", future.phrase(c), count(inUse), l.policy.HighWatermark, count(d.BudgetBytes))
	}
}

// Weights that are not to be used again are stale: what they gave is not finite, or their files have changed. They are evicted
// before anybody else is let in, whatever the policy, and never warm.

// renew evicts or drops what is stale and at no work.
func (l *ledger) renew() {
	for _, s := range l.services {
		for _, c := range s.components {
			r := c.holder()
			switch {
			case c.stale == "" || s.silent || c.doubtful && !l.retry:
			case c.state == Resident && (r == nil || r.phase == placed):
				l.evict(c, c.staleFor, Stale, "%v is not used again: %s", c, c.stale)
			case l.droppable(c):
				l.discard(c, Stale, "%v is not used again: %s", c, c.stale)
			}
		}
	}
}
