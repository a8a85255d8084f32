package simulate

import (
	"cmp"

	"github.com/triptych-serving/triptych/orchestrator/residency"
)

// Policy is who is evicted, and whether anybody is.
type Policy struct {
	Name string
	residency.Policy
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
	rival := func(name string, order func(a, b residency.Idle) int) Policy {
		return Policy{Name: name, Policy: residency.Policy{Order: order, NoPrefetch: true, WaitFactor: 1}}
	}
	used := func(a, b residency.Idle) int { return a.LastUsed.Compare(b.LastUsed) }
	loaded := func(a, b residency.Idle) int { return cmp.Compare(a.Loaded, b.Loaded) }
	return []Policy{
		{Name: Ours},
		{Name: OursBare, Policy: residency.Policy{NoPrefetch: true}},
		{Name: InOrder, Policy: residency.Policy{NoPrefetch: true, WaitFactor: 1}},
		{Name: Foretold, Policy: residency.Policy{NoPrefetch: true}, Foretold: true},
		rival(LRU, func(a, b residency.Idle) int { return cmp.Or(used(a, b), loaded(a, b)) }),
		rival("fifo", loaded),
		rival("largest first", func(a, b residency.Idle) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), used(a, b)) }),
		{Name: "keep all or fail", Policy: residency.Policy{NoPrefetch: true, WaitFactor: 1}, KeepAll: true},
	}
}
