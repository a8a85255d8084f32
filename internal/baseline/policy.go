// Package baseline has what the memory policy is compared with and on: other policies, generated traces, and the least that
// anybody could have loaded, who knows all jobs from the beginning or only how often which come.
//
// The package may import orchestrator/residency, its simulate, stage and the standard library.
package baseline

import (
	"cmp"
	"fmt"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
)

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
func Policies() []simulate.Policy {
	strict, bare := residency.Policy{WaitFactor: 1}, residency.Rival{NoPrefetch: true}
	rival := func(name string, order func(a, b residency.Idle) int) simulate.Policy {
		return simulate.Policy{Name: name, Policy: strict, Rival: residency.Rival{Order: order, NoPrefetch: true}}
	}
	used := func(a, b residency.Idle) int { return a.LastUsed.Compare(b.LastUsed) }
	loaded := func(a, b residency.Idle) int { return cmp.Compare(a.Loaded, b.Loaded) }
	return []simulate.Policy{
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

// Options are the machine, and how hard the oracle tries.
type Options struct {
	simulate.Options
	// OracleWidth is how many sets of components the oracle keeps in view: the more, the slower and the
	// closer; see Result.OracleExact. 0 is 2000.
	OracleWidth int
}

const oracleWidth = 2000

func (o Options) width() int { return cmp.Or(o.OracleWidth, oracleWidth) }

// Result is how a policy did, and how it could have done.
type Result struct {
	simulate.Result
	// OracleSeconds is the least that any policy could have spent on loads to grant the same turns in the
	// same order and with the same overlaps, all known from the beginning; a lower bound of it if not exact. The oracle
	// knows nothing of warm memory, so that there is none with it.
	OracleSeconds float64 `json:"oracle_seconds"`
	OracleExact   bool    `json:"oracle_exact"`
}

// Run is simulate.Run beside the oracle, which has read the Uses.
func Run(t simulate.Trace, p simulate.Policy, o Options) (r Result, err error) {
	if r.Result, err = simulate.Run(t, p, o.Options); err != nil {
		return r, err
	}
	c, varies := cachingOf(t, o.Options)
	c.uses, r.Uses = r.Uses, nil
	if o.WarmBytes == 0 {
		least, exact := c.least(o.width())
		r.OracleSeconds, r.OracleExact = least.Seconds(), exact && !varies
	}
	return r, nil
}

// Compare runs every policy.
func Compare(t simulate.Trace, o Options) ([]Result, error) {
	var out []Result
	for _, p := range Policies() {
		r, err := Run(t, p, o)
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w", p.Name, err)
		}
		out = append(out, r)
	}
	return out, nil
}
