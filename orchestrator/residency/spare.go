package residency

import (
	"cmp"
	"slices"
	"time"
)

// spares tells whether r does better to wait than to evict the victims of p: those at work, or about to be, will give back
// scratch, or leave weights that are missed less, and waiting for that is expected to take less time than is saved in
// reloads. What r waits altogether is bounded by what it saves, whatever was expected: so it never costs more than
// twice the better of the two.
func (l *ledger) spares(r *request, p *placement) bool {
	d := p.service.device
	if len(p.victims) == 0 || l.policy.Order != nil {
		return false
	}
	var working []*request
	for _, q := range l.requests {
		if q.phase >= reserved && q.service.device == d {
			working = append(working, q)
		}
	}
	slices.SortStableFunc(working, func(a, b *request) int { return cmp.Compare(l.rest(a), l.rest(b)) })
	start := cmp.Or(r.sparing, l.now)
	short, idle := p.service.missing(r.need)-l.free(d), p.from
	for _, q := range working {
		short -= q.need.Footprint.ScratchBytes
		if c := q.component(); c != p.service.find(r.need.Model) {
			idle = append(slices.Clone(idle), c)
		}
		_, later, _ := l.makeRoom(r, p.service, short, idle)
		until := start.Add(time.Duration((p.cost - later) * float64(time.Second)))
		if l.now.Add(time.Duration(l.rest(q) * float64(time.Second))).Before(until) {
			r.sparing = start
			l.by(until)
			return true
		}
	}
	return false
}
