package stagetest

import (
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// evict evicts the request's components, which leaves nothing warm, and tells the bytes that it frees in all.
func (c contract) evict(t *testing.T, s stage.Stage) (freed int64) {
	t.Helper()
	for _, name := range c.Request.Components {
		e, err := s.Evict(patient(t), stage.EvictRequest{Component: name})
		if err != nil || e.WarmBytes != 0 {
			t.Fatalf("Evict of %q = %+v, %v", name, e, err)
		}
		freed += e.FreedBytes
	}
	return freed
}

// warming opens a stage that keeps the component warm, and gives the bytes of that.
func (c contract) warming(t *testing.T) (stage.Stage, int64) {
	t.Helper()
	if c.Other == "" {
		t.Skip("the stage keeps nothing warm")
	}
	c.alone(t)
	s, _ := c.Open(t)
	weights, other, budget := find(t, s, c.name()).WeightsBytes, find(t, s, c.of(c.Other)).WeightsBytes, info(t, s).WarmBudgetBytes
	if budget < weights || budget >= weights+other {
		t.Fatalf("memory of %d bytes for warm weights is not for one of %d and %d alone", budget, weights, other)
	}
	return s, weights
}

// load loads the component within a limit, and tells its progress.
func (c contract) load(t *testing.T, s stage.Stage, limit int64) progress {
	t.Helper()
	var p progress
	if err := s.Load(patient(t), stage.LoadRequest{Component: c.name(), LimitBytes: limit}, p.add); err != nil {
		t.Fatalf("Load within %d: %v", limit, err)
	}
	p.check(t)
	return p
}

// states checks how many bytes of the component are resident, and how many warm, with nothing else there.
func (c contract) states(t *testing.T, s stage.Stage, resident, warm int64) {
	t.Helper()
	held := func(bytes int64) []stage.ResidentComponent {
		if bytes == 0 {
			return nil
		}
		return []stage.ResidentComponent{{Name: c.name(), WeightsBytes: bytes}}
	}
	i := info(t, s)
	same(t, "resident components", i.Resident, held(resident))
	same(t, "warm components", i.Warm, held(warm))
	if taken(i) != resident {
		t.Errorf("%d bytes are used with %d resident", taken(i), resident)
	}
}

// evicts checks what an eviction does, in bytes.
func evicts(t *testing.T, s stage.Stage, component string, keep bool, freed, warm int64) {
	t.Helper()
	got, err := s.Evict(patient(t), stage.EvictRequest{Component: component, Keep: keep})
	if want := (stage.Evicted{FreedBytes: freed, WarmBytes: warm}); err != nil || got != want {
		t.Errorf("Evict of %q (keep: %v) = %+v, %v; want %+v", component, keep, got, err, want)
	}
}

// What is kept is off the device and not to be used; it is resident again at once, or dropped.
func (c contract) testKeep(t *testing.T) {
	s, weights := c.warming(t)
	c.load(t, s, 0)
	result := works(t, s, c.Request)
	for range 2 {
		evicts(t, s, c.name(), true, weights, weights)
		c.states(t, s, 0, weights)
		evicts(t, s, c.name(), true, 0, weights)
		c.states(t, s, 0, weights)
		refuses(t, s, c.Request, "work on a warm model", stage.StageEvicted)
		if p := c.load(t, s, 0); len(p.loaded) != 1 {
			t.Errorf("Load of a warm model made progress %d times", len(p.loaded))
		}
		c.states(t, s, weights, 0)
		same(t, "results before and after it was warm", works(t, s, c.Request), result)
	}
	evicts(t, s, c.name(), true, weights, weights)
	for range 2 {
		evicts(t, s, c.name(), false, 0, 0)
		c.states(t, s, 0, 0)
	}
	c.load(t, s, 0)
	c.states(t, s, weights, 0)
}

// Warm weights serve a load that takes as much, and no other; one that is refused leaves them.
func (c contract) testKeepLimited(t *testing.T) {
	s, weights := c.warming(t)
	least := c.within(t, s, 1).WeightsBytes()
	keep := func(bytes int64) {
		t.Helper()
		c.states(t, s, bytes, 0)
		evicts(t, s, c.name(), true, bytes, bytes)
		c.states(t, s, 0, bytes)
	}
	c.load(t, s, least)
	result := works(t, s, c.Request)
	keep(least)
	want(t, "Load within too small a limit", s.Load(patient(t), stage.LoadRequest{Component: c.name(), LimitBytes: least - 1}, nil), stage.ModelDoesNotFit)
	c.states(t, s, 0, least)
	if p := c.load(t, s, least); len(p.loaded) != 1 {
		t.Errorf("Load of a warm model within the same limit made progress %d times", len(p.loaded))
	}
	same(t, "results before and after it was warm", works(t, s, c.Request), result)
	keep(least)
	c.load(t, s, 0)
	keep(weights)
	c.load(t, s, least)
	c.states(t, s, least, 0)
}

// The memory for warm weights is not exceeded: what has no room in it is dropped.
func (c contract) testKeepWithin(t *testing.T) {
	s, weights := c.warming(t)
	c.load(t, s, 0)
	evicts(t, s, c.name(), true, weights, weights)
	load(t, s, c.of(c.Other))
	bytes := info(t, s).Resident[0].WeightsBytes
	evicts(t, s, c.of(c.Other), true, bytes, 0)
	c.states(t, s, 0, weights)
	evicts(t, s, c.name(), false, 0, 0)
	load(t, s, c.of(c.Other))
	evicts(t, s, c.of(c.Other), true, bytes, bytes)
	c.load(t, s, 0)
	evicts(t, s, c.name(), true, weights, 0)
	same(t, "warm components", info(t, s).Warm, []stage.ResidentComponent{{Name: c.of(c.Other), WeightsBytes: bytes}})
}

func (c contract) testKeepWaits(t *testing.T) {
	if c.Other == "" {
		t.Skip("the stage keeps nothing warm")
	}
	c.alone(t)
	kept := stage.EvictRequest{Component: c.name(), Keep: true}
	s := c.underway(t, func(s stage.Stage) { waits(t, "Evict", "running work", evicting(s, kept)) })
	weights := find(t, s, c.name()).WeightsBytes
	// The one that was given up may still have been done.
	if e, err := s.Evict(patient(t), kept); err != nil || e.WarmBytes != weights {
		t.Errorf("Evict that keeps = %+v, %v; want %d bytes warm", e, err, weights)
	}
	c.states(t, s, 0, weights)
}

// Loads, evictions and work at once leave the model in one of its states, counted once.
func (c contract) testKeepTogether(t *testing.T) {
	s, weights := c.warming(t)
	ctx := patient(t)
	together(8, func(i int) {
		for range 4 {
			var err error
			switch i % 4 {
			case 0, 1:
				_, err = s.Evict(ctx, stage.EvictRequest{Component: c.name(), Keep: i%4 == 0})
			case 2:
				err = s.Load(ctx, stage.LoadRequest{Component: c.name()}, nil)
			case 3:
				if _, err = c.work(ctx, s); stage.ReasonOf(err) == stage.StageEvicted {
					err = nil
				}
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	c.load(t, s, 0)
	c.states(t, s, weights, 0)
	evicts(t, s, c.name(), true, weights, weights)
	c.states(t, s, 0, weights)
}
