package baseline

import (
	"cmp"
	"math"
	"slices"

	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
)

// Online is the least loading that anybody can expect who knows which jobs come how often, and all of a job once it
// has arrived, but not which job comes next. It is of jobs that come one after another: where they wait for each
// other, serving them in another order can need less.
type Online struct {
	// ExpectedSeconds are of the loads, first ones included, of as many jobs as the trace has, each drawn by itself
	// from those of the trace.
	ExpectedSeconds float64 `json:"expected_seconds"`
	// ReloadSeconds are what the same choices come to for the jobs of the trace in their order.
	ReloadSeconds float64 `json:"reload_seconds"`
	// OracleSeconds are the least for the same jobs in the same order by one who knows them all from the beginning; a
	// lower bound of it if not exact.
	OracleSeconds float64 `json:"oracle_seconds"`
	OracleExact   bool    `json:"oracle_exact"`
}

// The bounds of what is solved: components, ways from one set of them to another, and ways times jobs.
const (
	onlineParts = 15
	onlineWays  = 1 << 23
	onlineWork  = 1 << 33
)

// onlineSpan is so little that it is neglected how much the expected seconds of one more job depend on what is in
// memory.
const onlineSpan = 1e-9

// FindOnline is the Online of a trace. It reports false where there is too much to choose from, no job that fits, warm
// memory, or a component that is kept in more than one size.
func FindOnline(t simulate.Trace, o Options) (Online, bool) {
	c, varies := cachingOf(t, o.Options)
	if varies || o.WarmBytes > 0 {
		return Online{}, false
	}
	d := decisions{caching: c}
	for _, uses := range t.Uses(o.Options) {
		if !slices.ContainsFunc(uses, func(u simulate.Use) bool { return d.room(u) < 0 }) { // else it is refused
			d.draw(uses)
		}
	}
	online, ok := d.solve()
	if ok {
		least, exact := d.inOrder().least(o.width())
		online.OracleSeconds, online.OracleExact = least.Seconds(), exact
	}
	return online, ok
}

// decisions are a Markov decision process: a state is the set of components in memory, jobs are drawn by chance, and
// at each of a job's uses there is a choice of what stays.
type decisions struct {
	caching
	kinds []kind
	drawn []int          // kinds, in the order of the trace
	turns []simulate.Use // of all kinds
	sets  []uint64
	ways  [][]choice // by turn and set
}

// kind is of jobs that are alike.
type kind struct {
	turns  []int
	count  int
	values [][]float64 // by turn and set that it finds: seconds of loads expected from it on
}

// choice is what a turn can make of a set.
type choice struct {
	seconds float64 // of loads
	to      []int   // sets
}

// draw takes up a job.
func (d *decisions) draw(uses []simulate.Use) {
	var turns []int
	for _, u := range uses {
		if !slices.Contains(d.turns, u) {
			d.turns = append(d.turns, u)
		}
		turns = append(turns, slices.Index(d.turns, u))
	}
	i := slices.IndexFunc(d.kinds, func(k kind) bool { return slices.Equal(k.turns, turns) })
	if i < 0 {
		i = len(d.kinds)
		d.kinds = append(d.kinds, kind{turns: turns})
	}
	d.kinds[i].count++
	d.drawn = append(d.drawn, i)
}

// solve is value iteration: what so many jobs can be expected to take at least, for one job more each time, until
// one more costs the same from wherever it starts.
func (d *decisions) solve() (o Online, ok bool) {
	if len(d.drawn) == 0 || len(d.bytes) > onlineParts || !d.explore() {
		return Online{}, false
	}
	value := make([]float64, len(d.sets)) // by what is in memory between two jobs
	for n := range d.drawn {
		next := d.more(value)
		least, most := math.Inf(1), math.Inf(-1)
		for s := range next {
			least, most = min(least, next[s]-value[s]), max(most, next[s]-value[s])
		}
		value = next
		if o.ExpectedSeconds = value[0]; most-least < onlineSpan {
			o.ExpectedSeconds += most * float64(len(d.drawn)-1-n)
			break
		}
	}
	set := 0
	for _, i := range d.drawn {
		k := d.kinds[i]
		for turn, t := range k.turns {
			way, after := d.ways[t][set], k.after(turn, value)
			o.ReloadSeconds += way.seconds
			set = slices.MinFunc(way.to, func(a, b int) int { return cmp.Compare(after[a], after[b]) })
		}
	}
	return o, true
}

// inOrder is what the oracle is to know: the jobs, one after another.
func (d *decisions) inOrder() caching {
	c := d.caching
	for _, k := range d.drawn {
		for _, t := range d.kinds[k].turns {
			c.uses = append(c.uses, d.turns[t])
		}
	}
	return c
}

// explore finds the sets that there can be, and the ways between them. Like the oracle, it loads nothing before it is
// used, and evicts nothing before room is needed, nor more than that takes.
func (d *decisions) explore() bool {
	index := map[uint64]int{0: 0}
	d.sets, d.ways = []uint64{0}, make([][]choice, len(d.turns))
	ways := 0
	for s := 0; s < len(d.sets); s++ {
		for t, u := range d.turns {
			held := d.sets[s]
			way := choice{seconds: d.loads(u.Pinned &^ held).Seconds()}
			for _, set := range d.largest(held, u) {
				if _, known := index[set]; !known {
					index[set] = len(d.sets)
					d.sets = append(d.sets, set)
				}
				way.to = append(way.to, index[set])
			}
			d.ways[t] = append(d.ways[t], way)
			ways += len(way.to)
		}
		if ways > onlineWays || ways*len(d.drawn) > onlineWork {
			return false
		}
	}
	return true
}

// largest are the sets that can be in memory at a use, of which none is part of another.
func (d *decisions) largest(held uint64, u simulate.Use) (sets []uint64) {
	d.fill(u.Pinned, held&^u.Pinned, d.room(u), func(set uint64) {
		part := func(of uint64) bool { return set&^of == 0 }
		if !slices.ContainsFunc(sets, part) {
			sets = append(slices.DeleteFunc(sets, func(s uint64) bool { return s&^set == 0 }), set)
		}
	})
	return sets
}

// after is what is expected behind a turn, value behind the last.
func (k kind) after(turn int, value []float64) []float64 {
	if turn+1 == len(k.turns) {
		return value
	}
	return k.values[turn+1]
}

// more is the value of one more job.
func (d *decisions) more(value []float64) []float64 {
	next := make([]float64, len(d.sets))
	for i := range d.kinds {
		k := &d.kinds[i]
		if k.values == nil {
			k.values = make([][]float64, len(k.turns))
		}
		for turn := len(k.turns) - 1; turn >= 0; turn-- {
			after, found := k.after(turn, value), make([]float64, len(d.sets))
			for s, way := range d.ways[k.turns[turn]] {
				best := math.Inf(1)
				for _, to := range way.to {
					best = min(best, after[to])
				}
				found[s] = way.seconds + best
			}
			k.values[turn] = found
		}
		chance := float64(k.count) / float64(len(d.drawn))
		for s, x := range k.values[0] {
			next[s] += chance * x
		}
	}
	return next
}
