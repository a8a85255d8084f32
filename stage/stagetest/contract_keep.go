package stagetest

import (
	"context"
	"errors"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

func (c contract[S]) evict(ctx context.Context, s S) (stage.Evicted, error) {
	return s.Evict(ctx, stage.EvictRequest{Model: c.Model})
}

func (c contract[S]) keep(ctx context.Context, s S) (stage.Evicted, error) {
	return s.Evict(ctx, stage.EvictRequest{Model: c.Model, Keep: true})
}

// warming opens a stage that keeps Model warm, and gives the bytes of that.
func (c contract[S]) warming(t *testing.T) (S, int64) {
	t.Helper()
	if c.Other == "" {
		t.Skip("the stage keeps nothing warm")
	}
	s, _ := c.Open(t)
	weights, other, budget := find(t, s, c.Model).WeightsBytes, find(t, s, c.Other).WeightsBytes, info(t, s).WarmBudgetBytes
	if budget < weights || budget >= weights+other {
		t.Fatalf("memory of %d bytes for warm weights is not for one of %d and %d alone", budget, weights, other)
	}
	return s, weights
}

// load loads and tells how often progress was called.
func (c contract[S]) load(t *testing.T, s S, limit int64) int {
	t.Helper()
	var p progress
	if err := s.Load(patient(t), stage.LoadRequest{Model: c.Model, LimitBytes: limit}, p.add); err != nil {
		t.Fatalf("Load within %d: %v", limit, err)
	}
	p.check(t)
	return len(p.loaded)
}

// states checks how many bytes of Model are resident, and how many warm, with nothing else there.
func (c contract[S]) states(t *testing.T, s S, resident, warm int64) {
	t.Helper()
	models := func(bytes int64) []stage.ResidentModel {
		if bytes == 0 {
			return nil
		}
		return []stage.ResidentModel{{Model: c.Model, WeightsBytes: bytes}}
	}
	i := info(t, s)
	same(t, "resident models", i.Resident, models(resident))
	same(t, "warm models", i.Warm, models(warm))
	if i.UsedBytes != resident {
		t.Errorf("%d bytes are used with %d resident", i.UsedBytes, resident)
	}
}

func evicted(t *testing.T, call string, got stage.Evicted, err error, freed, warm int64) {
	t.Helper()
	if want := (stage.Evicted{FreedBytes: freed, WarmBytes: warm}); err != nil || got != want {
		t.Errorf("%s = %+v, %v; want %+v", call, got, err, want)
	}
}

// What is kept is off the device and not to be used; it is resident again at once, or dropped.
func (c contract[S]) testKeep(t *testing.T) {
	s, weights := c.warming(t)
	ctx := patient(t)
	c.load(t, s, 0)
	result, err := c.work(ctx, s, c.Model)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		e, err := c.keep(ctx, s)
		evicted(t, "Evict that keeps", e, err, weights, weights)
		c.states(t, s, 0, weights)
		e, err = c.keep(ctx, s)
		evicted(t, "Evict that keeps what is warm", e, err, 0, weights)
		c.states(t, s, 0, weights)
		_, err = c.work(ctx, s, c.Model)
		want(t, "work on a warm model", err, stage.StageEvicted)
		if n := c.load(t, s, 0); n != 1 {
			t.Errorf("Load of a warm model made progress %d times", n)
		}
		c.states(t, s, weights, 0)
		again, err := c.work(ctx, s, c.Model)
		if err != nil {
			t.Fatalf("work on what was warm: %v", err)
		}
		same(t, "results before and after it was warm", again, result)
	}
	_, err = c.keep(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		e, err := c.evict(ctx, s)
		evicted(t, "Evict of a warm model", e, err, 0, 0)
		c.states(t, s, 0, 0)
	}
	c.load(t, s, 0)
	c.states(t, s, weights, 0)
}

// Warm weights serve a load that takes as much, and no other; one that is refused leaves them.
func (c contract[S]) testKeepLimited(t *testing.T) {
	s, weights := c.warming(t)
	ctx := patient(t)
	req := c.plan
	req.LimitBytes = 1
	f, err := s.Plan(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	least := f.WeightsBytes
	keep := func(bytes int64) {
		t.Helper()
		c.states(t, s, bytes, 0)
		e, err := c.keep(ctx, s)
		evicted(t, "Evict that keeps", e, err, bytes, bytes)
		c.states(t, s, 0, bytes)
	}
	c.load(t, s, least)
	result, err := c.work(ctx, s, c.Model)
	if err != nil {
		t.Fatal(err)
	}
	keep(least)
	want(t, "Load within too small a limit", s.Load(ctx, stage.LoadRequest{Model: c.Model, LimitBytes: least - 1}, nil), stage.ModelDoesNotFit)
	c.states(t, s, 0, least)
	if n := c.load(t, s, least); n != 1 {
		t.Errorf("Load of a warm model within the same limit made progress %d times", n)
	}
	again, err := c.work(ctx, s, c.Model)
	if err != nil {
		t.Fatalf("work on what was warm: %v", err)
	}
	same(t, "results before and after it was warm", again, result)
	keep(least)
	c.load(t, s, 0)
	keep(weights)
	c.load(t, s, least)
	c.states(t, s, least, 0)
}

// The memory for warm weights is not exceeded: what has no room in it is dropped.
func (c contract[S]) testKeepWithin(t *testing.T) {
	s, weights := c.warming(t)
	ctx := patient(t)
	other := stage.EvictRequest{Model: c.Other, Keep: true}
	load := func() (bytes int64) {
		t.Helper()
		if err := s.Load(ctx, stage.LoadRequest{Model: c.Other}, nil); err != nil {
			t.Fatal(err)
		}
		return info(t, s).Resident[0].WeightsBytes
	}
	c.load(t, s, 0)
	if _, err := c.keep(ctx, s); err != nil {
		t.Fatal(err)
	}
	bytes := load()
	e, err := s.Evict(ctx, other)
	evicted(t, "Evict without room", e, err, bytes, 0)
	c.states(t, s, 0, weights)
	if _, err := c.evict(ctx, s); err != nil {
		t.Fatal(err)
	}
	load()
	e, err = s.Evict(ctx, other)
	evicted(t, "Evict with room", e, err, bytes, bytes)
	c.load(t, s, 0)
	e, err = c.keep(ctx, s)
	evicted(t, "Evict without room", e, err, weights, 0)
	same(t, "warm models", info(t, s).Warm, []stage.ResidentModel{{Model: c.Other, WeightsBytes: bytes}})
}

func (c contract[S]) testKeepWaits(t *testing.T) {
	if c.Other == "" {
		t.Skip("the stage keeps nothing warm")
	}
	s, _, gate := c.held(t)
	done := c.start(patient(t), s)
	await(t, "the work to begin", gate.Entered())
	ctx, cancel := context.WithTimeout(t.Context(), glimpse)
	defer cancel()
	if e, err := c.keep(ctx, s); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Evict did not wait for running work: %+v, %v", e, err)
	}
	gate.Release()
	if o := await(t, "the work to end", done); o.err != nil {
		t.Errorf("the work that Evict waited for: %v", o.err)
	}
	weights := find(t, s, c.Model).WeightsBytes
	// The one that was given up may still have been done.
	if e, err := c.keep(patient(t), s); err != nil || e.WarmBytes != weights {
		t.Errorf("Evict that keeps = %+v, %v; want %d bytes warm", e, err, weights)
	}
	c.states(t, s, 0, weights)
}

// Loads, evictions and work at once leave the model in one of its states, counted once.
func (c contract[S]) testKeepTogether(t *testing.T) {
	s, weights := c.warming(t)
	ctx := patient(t)
	together(8, func(i int) {
		for range 4 {
			var err error
			switch i % 4 {
			case 0:
				_, err = c.keep(ctx, s)
			case 1:
				_, err = c.evict(ctx, s)
			case 2:
				err = s.Load(ctx, stage.LoadRequest{Model: c.Model}, nil)
			case 3:
				if _, err = c.work(ctx, s, c.Model); stage.ReasonOf(err) == stage.StageEvicted {
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
	e, err := c.keep(ctx, s)
	evicted(t, "Evict that keeps", e, err, weights, weights)
	c.states(t, s, 0, weights)
}
