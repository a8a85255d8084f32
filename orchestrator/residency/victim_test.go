package residency

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// TestVictimsAgainstAllSubsets compares the choice of victims with what trying every subset finds:
// enough, none in vain, and the nearest next use as far as it can be.
func TestVictimsAgainstAllSubsets(t *testing.T) {
	for seed := range int64(3000) {
		r := rand.New(rand.NewSource(seed))
		l := &ledger{retry: true}
		d := l.device(Device{Host: "h", Name: "d", BudgetBytes: 1})
		for i := range 1 + r.Intn(3) {
			s := &service{id: StageID(fmt.Sprint("s", i)), kind: stage.Kinds()[i], device: d}
			l.services = append(l.services, s)
			for _, m := range []string{"a", "b", "c"} {
				c := s.component(m)
				c.state, c.bytes, c.lastUsed = Resident, int64(1+r.Intn(9)), time.Unix(r.Int63n(5), 0)
			}
		}
		var future uses
		for range r.Intn(12) {
			future = append(future, use{kind: stage.Kinds()[r.Intn(3)], model: string("abc"[r.Intn(3)])})
		}
		short := int64(1 + r.Intn(40))
		chosen, enough := l.victims(d, short, future, spareNone)

		idle, best := l.idle(d), -1
		for set := range 1 << len(idle) {
			if sum, nearest := weigh(idle, set, future); sum >= short {
				best = max(best, nearest)
			}
		}
		if enough != (best >= 0) {
			t.Fatalf("seed %d: enough is %v, the best subset %d", seed, enough, best)
		}
		if !enough {
			continue
		}
		var sum, smallest int64 = 0, 100
		nearest := never
		for _, c := range chosen {
			sum, smallest, nearest = sum+c.bytes, min(smallest, c.bytes), min(nearest, future.next(c))
		}
		if sum < short || sum-smallest >= short {
			t.Fatalf("seed %d: evicting %d bytes for %d, the smallest %d", seed, sum, short, smallest)
		}
		if nearest != best {
			t.Fatalf("seed %d: the nearest use is %d needs away, %d is possible", seed, nearest, best)
		}
	}
}

// weigh is the bytes of a subset and its nearest next use.
func weigh(of []*component, set int, future uses) (sum int64, nearest int) {
	nearest = never
	for i, c := range of {
		if set>>i&1 == 1 {
			sum += c.bytes
			nearest = min(nearest, future.next(c))
		}
	}
	return sum, nearest
}

// TestBeladyOnTheCycle runs jobs one after the other through stages of equal size where two of three
// fit, and counts loads. Evicting the least recently used would load every stage of every job; knowing
// the future needs no more loads than the best there is.
func TestBeladyOnTheCycle(t *testing.T) {
	const jobs = 20
	m := newChecked(t)
	need := func(k stage.Kind) Need { return Need{k, "m", stage.Footprint{WeightsBytes: 50}} }
	var cycle []Need
	for _, k := range stage.Kinds() {
		m.step(joined{stage: StageID(k.String()), kind: k, device: Device{Host: "h", Name: "d", BudgetBytes: 100}, models: []string{"m"}})
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
					m.step(loadDone{op})
				} else {
					m.step(evictDone{op, 50})
				}
				break
			}
		}
	}
	for i, k := range trace {
		id := RequestID(i + 1)
		m.step(asked{id, JobID(fmt.Sprint(i / 3)), need(k), false})
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
