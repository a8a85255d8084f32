package simulate

import (
	"cmp"

	"github.com/triptych-serving/triptych/orchestrator/residency"
)

// Policy is who is evicted, and whether anybody is.
type Policy struct {
	Name string
	residency.Policy
	residency.Rival
	// KeepAll refuses jobs whose stages do not fit beside all that was ever loaded, and evicts nothing.
	KeepAll bool
	// Foretold announces all jobs before the first arrives.
	Foretold bool
}

// The policies that are compared by name: what production has, less of it, and the least recently used.
const (
	Ours     = "triptych"
	OursBare = "triptych, no prefetch"
	InOrder  = "in order" // without prefetches and overtaking
	Foretold = "foretold" // without prefetches, all jobs announced before the first arrives
	LRU      = "lru"
)

// Policies are all there are, ours first. The others have our admission, serve in order of arrival, and choose
// victims from what has been, so that they load nothing ahead, which takes an announced future: ours is
// there without prefetches as well.
func Policies() []Policy {
	strict, bare := residency.Policy{WaitFactor: 1}, residency.Rival{NoPrefetch: true}
	rival := func(name string, order func(a, b residency.Idle) int) Policy {
		return Policy{Name: name, Policy: strict, Rival: residency.Rival{Order: order, NoPrefetch: true}}
	}
	used := func(a, b residency.Idle) int { return a.LastUsed.Compare(b.LastUsed) }
	loaded := func(a, b residency.Idle) int { return cmp.Compare(a.Loaded, b.Loaded) }
	return []Policy{
		{Name: Ours},
		{Name: OursBare, Rival: bare},
		{Name: "triptych, greedy", Rival: residency.Rival{Greedy: true}},
		{Name: InOrder, Policy: strict, Rival: bare},
		{Name: Foretold, Rival: bare, Foretold: true},
		rival(LRU, func(a, b residency.Idle) int { return cmp.Or(used(a, b), loaded(a, b)) }),
		rival("fifo", loaded),
		rival("largest first", func(a, b residency.Idle) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), used(a, b)) }),
		{Name: "keep all or fail", Policy: strict, Rival: bare, KeepAll: true},
	}
}
