package baseline

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
)

// drawn makes decisions of a few kinds of jobs, each of which comes so many times.
func drawn(c caching, kinds [][]simulate.Use, counts []int) *decisions {
	d := &decisions{caching: c}
	for i, uses := range kinds {
		for range counts[i] {
			d.draw(uses)
		}
	}
	return d
}

// expect is the least expected seconds of n jobs, by trying every set of components at every use, lazy or not.
func (c caching) expect(kinds [][]simulate.Use, counts []int, n int) float64 {
	sets := 1 << len(c.bytes)
	jobs := 0
	for _, count := range counts {
		jobs += count
	}
	value := make([]float64, sets)
	for range n {
		next := make([]float64, sets)
		for i, uses := range kinds {
			after := value
			for t := len(uses) - 1; t >= 0; t-- {
				before := make([]float64, sets)
				for from := range uint64(sets) {
					before[from] = math.Inf(1)
					for to := range uint64(sets) {
						if uses[t].Pinned&^to == 0 && c.size(to)+uses[t].ScratchBytes <= c.budget {
							before[from] = min(before[from], c.loads(to&^from).Seconds()+after[to])
						}
					}
				}
				after = before
			}
			for s := range next {
				next[s] += float64(counts[i]) / float64(jobs) * after[s]
			}
		}
		value = next
	}
	return value[0]
}

// TestOnlineAgainstEveryWay compares with trying everything, which is not lazy and knows of no bounds.
func TestOnlineAgainstEveryWay(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		c := instance(seed)
		c.budget = max(c.budget, slices.Max(c.bytes)+3)
		c.uses = nil
		for i := range c.cost {
			c.cost[i] *= time.Second
		}
		var kinds [][]simulate.Use
		var counts []int
		for range 1 + r.IntN(3) {
			var uses []simulate.Use
			for range 1 + r.IntN(3) {
				uses = append(uses, simulate.Use{Pinned: 1 << r.IntN(len(c.bytes)), ScratchBytes: r.Int64N(4)})
			}
			kinds, counts = append(kinds, uses), append(counts, 1+r.IntN(4))
		}
		d := drawn(c, kinds, counts)
		got, ok := d.solve()
		want := c.expect(kinds, counts, len(d.drawn))
		if !ok || math.Abs(got.ExpectedSeconds-want) > 1e-6 {
			t.Fatalf("seed %d: %v seconds are expected (%v), trying everything %v: %+v", seed, got.ExpectedSeconds, ok, want, c)
		}
		if least, exact := d.inOrder().least(oracleWidth); !exact || got.ReloadSeconds < least.Seconds()-1e-9 {
			t.Fatalf("seed %d: it loads %v seconds, and the oracle %v", seed, got.ReloadSeconds, least)
		}
	}
}

// TestOnlineOfIndependentUses compares with what is known of pages that are asked for independently of each other:
// it is best to keep the most popular ones but for one place, through which the others go (Aho, Denning and Ullman,
// Principles of Optimal Page Replacement, 1971). Of equal pages it does not matter which are kept.
func TestOnlineOfIndependentUses(t *testing.T) {
	for _, counts := range [][]int{{250, 250, 250, 250}, {400, 300, 200, 100}, {500, 200, 100, 100, 50, 50}} {
		for fit := 1; fit < len(counts); fit++ {
			c := caching{budget: int64(fit)}
			var kinds [][]simulate.Use
			jobs := 0
			for i, n := range counts {
				c.bytes, c.cost = append(c.bytes, 1), append(c.cost, time.Second)
				kinds = append(kinds, []simulate.Use{{Pinned: 1 << i}})
				jobs += n
			}
			var rest, square float64
			for _, n := range counts[fit-1:] {
				p := float64(n) / float64(jobs)
				rest, square = rest+p, square+p*p
			}
			misses := rest - square/rest // of a use
			d := drawn(c, kinds, counts)
			short, _ := d.solve()
			long := drawn(c, kinds, counts)
			long.drawn = append(long.drawn, long.drawn...)
			for i := range long.kinds {
				long.kinds[i].count *= 2
			}
			longer, ok := long.solve()
			if got := (longer.ExpectedSeconds - short.ExpectedSeconds) / float64(jobs); !ok || math.Abs(got-misses) > 1e-6 {
				t.Errorf("%v, %d fit: %v misses of a use (%v), known are %v", counts, fit, got, ok, misses)
			}
		}
	}
}

// TestOnlineOfTraces: what all fits is loaded once; jobs that are refused do not count; what is too much is not solved.
func TestOnlineOfTraces(t *testing.T) {
	trace := func(mix string) simulate.Trace {
		shares, err := ParseMix(mix)
		if err != nil {
			t.Fatal(err)
		}
		trace, err := Generate{Mix: shares, Jobs: 60, Arrivals: Poisson, Load: 0.5, Seed: 1}.Trace()
		if err != nil {
			t.Fatal(err)
		}
		return trace
	}
	two := trace("sd15,sdxl")
	o := Options{Options: simulate.Options{BudgetBytes: 2 * two.WeightsBytes(), LoadBytesPerSecond: 5e8}}
	all := o.LoadTime(two.WeightsBytes()).Seconds()
	got, ok := FindOnline(two, o)
	if !ok || math.Abs(got.ReloadSeconds-all) > 1e-6 || got.ExpectedSeconds > all+1e-6 || got.ExpectedSeconds < all*0.99 { // a model may not come
		t.Errorf("where all fits: %+v, %v; one load of each takes %v s", got, ok, all)
	}
	o.BudgetBytes = 3e9 // SDXL's denoiser is larger
	m := two.Models[slices.IndexFunc(two.Models, func(m simulate.Model) bool { return m.Name == "sd15" })]
	if got, ok = FindOnline(two, o); !ok || math.Abs(got.ReloadSeconds-o.LoadTime(m.Encoder.WeightsBytes+m.Denoiser.WeightsBytes+m.Decoder.WeightsBytes).Seconds()) > 1e-6 {
		t.Errorf("where one model fits: %+v, %v", got, ok)
	}
	if o.BudgetBytes = 1e8; func() bool { _, ok := FindOnline(two, o); return ok }() {
		t.Error("there is a least loading though nothing fits")
	}
	if many := trace("sd15:a,sd15:b,sd15:c,sd15:d,sd15:e,sd15:f"); func() bool { _, ok := FindOnline(many, o); return ok }() {
		t.Errorf("%d components are too many", 3*len(many.Models))
	}
}
