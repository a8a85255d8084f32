package residency

import (
	"fmt"
	"math"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// TestPlanAgainstEveryWay compares the choice of victims with trying every way to serve the known uses: nobody who
// knows no more could load less.
func TestPlanAgainstEveryWay(t *testing.T) {
	for seed := range int64(2000) {
		r := rand.New(rand.NewSource(seed))
		l := &ledger{}
		d := l.device(Device{Host: "h", Name: "d", BudgetBytes: int64(12 + r.Intn(20))})
		var idle []*component
		var held int64
		for i := range 3 {
			s := &service{id: StageID(fmt.Sprint("s", i)), kind: stage.Kinds()[i], device: d, names: []string{named(stage.Kinds()[i], "a"), named(stage.Kinds()[i], "b")}}
			s.fromFiles = pace{float64(1 + r.Intn(5)), 1}
			l.services = append(l.services, s)
			for _, m := range s.names {
				if bytes := int64(1 + r.Intn(9)); held+bytes <= d.BudgetBytes && r.Intn(3) > 0 {
					c := s.component(m)
					c.state, c.bytes, c.lastUsed, c.runs = Resident, bytes, time.Unix(r.Int63n(5), 0), r.Intn(4)
					held += bytes
					idle = append(idle, c)
				}
			}
		}
		need := func() Need {
			k := stage.Kinds()[r.Intn(3)]
			n := single(k, string("ab"[r.Intn(2)]), int64(1+r.Intn(9)), int64(r.Intn(4)))
			if r.Intn(3) == 0 {
				n.Components = []string{named(k, "a"), named(k, "b")}
				n.Footprints = map[string]stage.Footprint{"": takes(int64(r.Intn(4)), int64(1+r.Intn(5)), int64(1+r.Intn(5)))}
			}
			return n
		}
		asking := &request{need: need()}
		s := l.services[slices.Index(stage.Kinds(), asking.need.Kind)]
		l.requests = append(l.requests, asking)
		l.jobs = append(l.jobs, &job{id: "j"})
		for range r.Intn(6) {
			l.jobs[0].needs = append(l.jobs[0].needs, need())
		}
		short := s.missing(asking.need) - l.free(d)
		idle = slices.DeleteFunc(idle, func(c *component) bool { return c.service == s && asking.need.has(c.name) })
		victims, enough := l.makeRoom(asking, s, short, idle)
		var sum, freed int64
		for _, c := range idle {
			sum += c.bytes
		}
		for _, c := range victims {
			freed += c.bytes
		}
		if enough != (sum >= short) || enough && freed < short {
			t.Fatalf("seed %d: %d of %d bytes are freed, enough is %v", seed, freed, short, enough)
		}
		if !enough {
			continue
		}
		p, _ := l.lookAhead(asking, s, l.future())
		for i, n := range append([]Need{asking.need}, l.jobs[0].needs...) { // each wants its set, and leaves the rest but for its scratch
			var held []string
			for k, q := range p.parts {
				if p.uses[i].set>>k&1 == 1 {
					held = append(held, q.name)
				}
			}
			slices.Sort(held)
			if room := d.BudgetBytes - n.Footprints[""].ScratchBytes - p.size(p.uses[i].set); !slices.Equal(held, slices.Sorted(slices.Values(n.Components))) || room != p.uses[i].room {
				t.Fatalf("seed %d: %v is planned as %v with %d bytes beside, %d", seed, n, held, p.uses[i].room, room)
			}
		}
		cost := p.evict(idle, short).whole
		if best := p.brute(idle, short); math.Abs(cost-best) > 1e-9 {
			t.Fatalf("seed %d: it costs %v seconds, the best way %v", seed, cost, best)
		}
	}
}

// brute is the least cost by trying every set at every use.
func (p *plan) brute(idle []*component, short int64) float64 {
	var held, movable uint64
	for i, q := range p.parts {
		if c := q.service.find(q.name); c != nil && c.state == Resident {
			held |= 1 << i
			if slices.Contains(idle, c) {
				movable |= 1 << i
			}
		}
	}
	own := p.uses[0].set
	cost := map[uint64]float64{}
	better := func(to map[uint64]float64, set uint64, c float64) {
		if known, ok := to[set]; !ok || c < known {
			to[set] = c
		}
	}
	for gone := range uint64(1) << len(p.parts) {
		if gone&^movable == 0 && p.size(gone) >= short {
			better(cost, held&^gone|own, p.cost(own&^held))
		}
	}
	for _, u := range p.uses[1:] {
		next := map[uint64]float64{}
		for set, c := range cost {
			bit := u.set
			all := set | bit
			for kept := range uint64(1) << len(p.parts) {
				if kept&^all == 0 && kept&bit != 0 && p.size(kept&^bit) <= u.room {
					better(next, kept, c+p.cost(bit&^set))
				}
			}
		}
		if len(next) > 0 {
			cost = next
		}
	}
	best := math.Inf(1)
	for set, c := range cost {
		best = min(best, p.way(set, c, 0).whole)
	}
	return best
}

// TestBeladyOnTheCycle runs jobs one after the other through stages of equal size where two of three
// fit, and counts loads. Evicting the least recently used would load every stage of every job; knowing
// the future needs no more loads than the best there is.
func TestBeladyOnTheCycle(t *testing.T) {
	const jobs = 20
	m := newChecked(t)
	need := func(k stage.Kind) Need { return single(k, "m", 50, 0) }
	var cycle []Need
	for _, k := range stage.Kinds() {
		m.step(joined{holds: holds{stage: StageID(k.String())}, kind: k, device: Device{Host: "h", Name: "d", BudgetBytes: 100}, names: []string{named(k, "m")}})
		cycle = append(cycle, need(k))
	}
	var trace []stage.Kind
	for j := range jobs {
		m.step(announced{JobID(fmt.Sprint(j)), cycle})
		trace = append(trace, stage.Kinds()...)
	}
	loads := 0
	work := func() {
		for len(m.works) > 0 {
			for op := range m.works {
				if m.busy(op, Loading) != nil {
					loads++
					m.step(loadDone{op: op})
				} else {
					m.step(evictDone{op: op, freed: 50})
				}
				break
			}
		}
	}
	for i, k := range trace {
		id := RequestID(i + 1)
		m.step(asked{id, JobID(fmt.Sprint(i / 3)), need(k), false, false})
		work()
		m.step(released{id})
		work()
	}
	lru, best := misses(trace, true), misses(trace, false)
	if lru != len(trace) || best >= lru {
		t.Fatalf("least recently used loads %d times, the best is %d of %d", lru, best, len(trace))
	}
	if loads != best {
		t.Errorf("%d loads, the best is %d and least recently used %d", loads, best, lru)
	}
}

// misses counts the loads of two places of memory when the least recently used is evicted, or the
// one whose next use is farthest.
func misses(trace []stage.Kind, lru bool) (n int) {
	var held []stage.Kind // least recently used first
	for i, k := range trace {
		if at := slices.Index(held, k); at >= 0 {
			held = append(slices.Delete(held, at, at+1), k)
			continue
		}
		n++
		if len(held) == 2 {
			victim := 0
			next := func(k stage.Kind) int {
				if at := slices.Index(trace[i:], k); at >= 0 {
					return at
				}
				return never
			}
			if !lru && next(held[1]) > next(held[0]) {
				victim = 1
			}
			held = slices.Delete(held, victim, victim+1)
		}
		held = append(held, k)
	}
	return n
}
