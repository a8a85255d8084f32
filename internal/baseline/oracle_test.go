package baseline

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
)

// instance is a small caching problem, in which single uses always fit.
func instance(seed uint64) caching {
	r := rand.New(rand.NewPCG(seed, 1))
	n := 2 + r.IntN(4)
	c := caching{}
	var largest int64
	for range n {
		c.bytes = append(c.bytes, 1+r.Int64N(9))
		c.cost = append(c.cost, time.Duration(1+r.IntN(9)))
	}
	for range 3 + r.IntN(8) {
		u := simulate.Use{Pinned: 1 << r.IntN(n), ScratchBytes: r.Int64N(4)}
		if r.IntN(3) == 0 { // two at work
			u.Pinned |= 1 << r.IntN(n)
		}
		c.uses = append(c.uses, u)
		largest = max(largest, c.size(u.Pinned)+u.ScratchBytes)
	}
	c.budget = largest + r.Int64N(8)
	return c
}

// brute is the least by trying every set of components at every use, lazy or not.
func (c caching) brute() time.Duration {
	const none = time.Duration(1) << 60
	sets := uint64(1) << len(c.bytes)
	cost := make([]time.Duration, sets)
	for s := uint64(1); s < sets; s++ {
		cost[s] = none
	}
	for _, u := range c.uses {
		next := make([]time.Duration, sets)
		for to := range sets {
			next[to] = none
			if u.Pinned&^to != 0 || c.size(to)+u.ScratchBytes > c.budget {
				continue
			}
			for from := range sets {
				if cost[from] < none {
					next[to] = min(next[to], cost[from]+c.loads(to&^from))
				}
			}
		}
		cost = next
	}
	least := none
	for _, x := range cost {
		least = min(least, x)
	}
	return least
}

// TestOracleAgainstBruteForce: wide, it is the least; narrow, it is a lower bound and says so when it is less.
func TestOracleAgainstBruteForce(t *testing.T) {
	below := 0
	for seed := range uint64(3000) {
		c := instance(seed)
		want := c.brute()
		if got, exact := c.least(1 << len(c.bytes)); got != want || !exact {
			t.Fatalf("seed %d: the oracle says %v (exact: %v), trying everything %v: %+v", seed, got, exact, want, c)
		}
		for width := 1; width < 4; width++ {
			got, exact := c.least(width)
			if got > want || exact && got != want {
				t.Fatalf("seed %d: with %d sets the oracle says %v (exact: %v), the least is %v", seed, width, got, exact, want)
			}
			if got < want {
				below++
			}
		}
	}
	if below == 0 {
		t.Error("no instance was relaxed: the bound is not tested")
	}
}

// TestOracleOnTheCycle: of three equal parts that take turns, two fit. Keeping one of them in memory for ever
// and swapping the others is the best, as Belady has it: one load and a half each round.
func TestOracleOnTheCycle(t *testing.T) {
	c := caching{bytes: []int64{5, 5, 5}, cost: []time.Duration{1, 1, 1}, budget: 10}
	const rounds = 20
	for i := range 3 * rounds {
		c.uses = append(c.uses, simulate.Use{Pinned: 1 << (i % 3)})
	}
	got, exact := c.least(100)
	if want := time.Duration(1 + (3*rounds)/2); got != want || !exact {
		t.Errorf("%v loads (exact: %v), expected %v", got, exact, want)
	}
}

func TestOracleRefusesWhatDoesNotFit(t *testing.T) {
	c := caching{bytes: []int64{5}, cost: []time.Duration{1}, budget: 6, uses: []simulate.Use{{Pinned: 1, ScratchBytes: 2}}}
	if got, exact := c.least(10); got != 0 || exact {
		t.Errorf("got %v, exact: %v", got, exact)
	}
}

func BenchmarkOracle(b *testing.B) {
	for _, models := range []int{2, 4, 8} {
		b.Run(fmt.Sprintf("models=%d", models), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			c := caching{}
			for range 3 * models {
				c.bytes = append(c.bytes, 1+r.Int64N(100))
				c.cost = append(c.cost, time.Duration(1+r.IntN(100)))
			}
			c.budget = max(c.size(1<<(3*models)-1)*6/10, 100)
			for range 1000 {
				c.uses = append(c.uses, simulate.Use{Pinned: 1 << r.IntN(3*models)})
			}
			for b.Loop() {
				c.least(oracleWidth)
			}
		})
	}
}
