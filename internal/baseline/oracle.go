package baseline

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
)

// caching is weighted caching with sizes: each use wants its components in memory, and what is there never
// exceeds the budget, less the scratch.
type caching struct {
	bytes  []int64
	cost   []time.Duration // of a load
	budget int64           // 0 is no limit
	uses   []simulate.Use
}

// cachingOf is what a trace loads within a budget, without uses. varies is that a component is kept in more than one size, of which
// the least counts.
func cachingOf(t simulate.Trace, o simulate.Options) (c caching, varies bool) {
	c.budget = o.BudgetBytes
	for _, p := range t.Components() {
		c.bytes, c.cost = append(c.bytes, p.LeastBytes), append(c.cost, o.LoadTime(p.LeastBytes))
		varies = varies || p.LeastBytes < p.MostBytes
	}
	return c, varies
}

// holding is a set of components in memory and the least loads it takes to come to it.
type holding struct {
	set  uint64
	cost time.Duration
}

// least is the least time of loads with which the uses can be served in their order, starting from empty
// memory, by one who knows them all. It is exact unless some step had to keep more than width sets in view;
// then it is a lower bound.
//
// It bounds every policy that grants the same turns in the same order, with the same overlaps. At a grant
// all pinned components are resident and all that is reserved fits the budget, so the sets a policy holds at
// its grants are one of the ways that are searched, and its loads pay at least for what is new in each. That
// loads take time, that evictions do, and that bytes are reserved for prefetches only makes it worse.
//
// The search is dynamic programming over the set in memory. Three facts keep it small; with V(S) as the least
// cost of all uses still to come:
//
//   - Nothing need be loaded before its use, nor evicted before room is needed: both can be put off at no cost.
//     So a hit has one successor, and a miss one for each largest set of bystanders that fits.
//   - V(S) <= V(T) + cost(T\S): from S do as from T, and load what of T is missing when it is used first, which
//     needs no more room. So a set T at cost t is of no use beside S at cost s <= t - cost(T\S).
//   - V falls as the set grows. So two sets may be replaced by their union at the lesser of their costs, even
//     where the union exceeds the budget, and the result can only become smaller. This is how the width is
//     kept (a relaxed decision diagram, see Bergman et al., Decision Diagrams for Optimization, 2016, ch. 4).
func (c caching) least(width int) (least time.Duration, exact bool) {
	front, exact := []holding{{}}, true
	for _, u := range c.uses {
		next := map[uint64]time.Duration{}
		reach := func(set uint64, cost time.Duration) {
			if known, ok := next[set]; !ok || cost < known {
				next[set] = cost
			}
		}
		for _, h := range front {
			cost := h.cost + c.loads(u.Pinned&^h.set)
			c.fill(u.Pinned, h.set&^u.Pinned, c.room(u), func(set uint64) { reach(set, cost) })
		}
		front = front[:0]
		for set, cost := range next {
			front = append(front, holding{set, cost})
		}
		front = c.prune(front)
		if len(front) > width {
			exact = false
			front = c.prune(merge(front, width))
		}
	}
	if len(front) == 0 {
		return 0, false // a use that does not fit: nobody could have served it
	}
	return front[0].cost, exact
}

// room is what a use leaves for bystanders, in bytes.
func (c caching) room(u simulate.Use) int64 {
	if c.budget == 0 {
		return 1 << 62
	}
	return c.budget - u.ScratchBytes - c.size(u.Pinned)
}

func (c caching) size(set uint64) (sum int64) {
	for ; set != 0; set &= set - 1 {
		sum += c.bytes[bits.TrailingZeros64(set)]
	}
	return sum
}

func (c caching) loads(set uint64) (sum time.Duration) {
	for ; set != 0; set &= set - 1 {
		sum += c.cost[bits.TrailingZeros64(set)]
	}
	return sum
}

// fill yields kept with every largest part of others that fits into room; smaller parts may be among them.
func (c caching) fill(kept, others uint64, room int64, yield func(uint64)) {
	switch {
	case room < 0:
		return
	case c.size(others) <= room:
		yield(kept | others)
		return
	}
	first := others & -others
	c.fill(kept|first, others&^first, room-c.size(first), yield)
	c.fill(kept, others&^first, room, yield)
}

// prune drops what is of no use beside a cheaper one, and sorts by cost.
func (c caching) prune(front []holding) []holding {
	slices.SortFunc(front, func(a, b holding) int {
		return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(bits.OnesCount64(b.set), bits.OnesCount64(a.set)), cmp.Compare(a.set, b.set))
	})
	kept := front[:0]
	for _, h := range front {
		if !slices.ContainsFunc(kept, func(k holding) bool { return k.cost+c.loads(h.set&^k.set) <= h.cost }) {
			kept = append(kept, h)
		}
	}
	return kept
}

// merge leaves width holdings: the dearest become one, of all that any of them holds.
func merge(front []holding, width int) []holding {
	last := &front[width-1]
	for _, h := range front[width:] {
		last.set |= h.set
	}
	return front[:width]
}
