package stagetest

import (
	"context"
	"errors"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

func (c contract) testWorkNeedsComponent(t *testing.T) {
	s, _ := c.Open(t)
	ctx := patient(t)
	refuses(t, s, c.Request, "work before Load", stage.StageEvicted)
	_, err := s.Work(ctx, Of(nobody, c.Request), stage.Observer{})
	c.wantNotFound(t, "work", err)
	load(t, s, c.Request.Components...)
	works(t, s, c.Request)
	c.evict(t, s)
	refuses(t, s, c.Request, "work after Evict", stage.StageEvicted)
}

func (c contract) testWorkCounted(t *testing.T) {
	s, _ := c.loaded(t)
	before := info(t, s)
	works(t, s, c.Request)
	after := info(t, s)
	if after.UsedBytes != before.UsedBytes || len(after.Resident) != len(before.Resident) {
		t.Errorf("work left %d bytes behind", after.UsedBytes-before.UsedBytes)
	}
	if after.PeakBytes <= before.UsedBytes {
		t.Errorf("work took no scratch: peak %d, used before %d", after.PeakBytes, before.UsedBytes)
	}
	if after.Generation != before.Generation {
		t.Errorf("work changed the generation from %d to %d", before.Generation, after.Generation)
	}
}

func (c contract) testWorkTogether(t *testing.T) {
	s, _ := c.loaded(t)
	ctx := patient(t)
	alone := works(t, s, c.Request)
	const n = 4
	results := make([]stage.Result, n)
	together(n, func(i int) {
		if _, err := s.Info(ctx); err != nil {
			t.Errorf("Info: %v", err)
		}
		result, err := c.work(ctx, s)
		if err != nil {
			t.Errorf("work: %v", err)
		}
		results[i] = result
	})
	for _, r := range results {
		same(t, "results alone and at once", alone, r)
	}
}

func (c contract) testWorkCancelled(t *testing.T) {
	t.Run("Before", func(t *testing.T) {
		s, _ := c.loaded(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.work(ctx, s); !errors.Is(err, context.Canceled) {
			t.Errorf("work that was cancelled before: %v", err)
		}
	})
	t.Run("Within", func(t *testing.T) {
		s, script, gate := c.held(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := c.start(ctx, s)
		await(t, "the work to begin", gate.Entered())
		cancel()
		if o := await(t, "cancelled work to end", done); !errors.Is(o.err, context.Canceled) {
			t.Errorf("work that was cancelled: %v", o.err)
		}
		if c.evict(t, s) <= 0 { // waits for the work
			t.Errorf("Evict after cancelled work freed nothing")
		}
		if n := script.Steps(c.op()); n > 2 {
			t.Errorf("cancelled at step 1, the work went on to step %d", n)
		}
		empty(t, s)
	})
}

func (c contract) testSettle(t *testing.T) {
	s, _ := c.loaded(t)
	for _, name := range []string{c.name(), nobody, ""} {
		settled(t, s, name, taken(info(t, s)))
	}
	if i := info(t, s); !holds(i, c.name()) {
		t.Errorf("after Settle, resident are %v", i.Resident)
	}
	c.evict(t, s)
	settled(t, s, c.name(), 0)
}

// testSettleWaits: for work that goes on although its caller has gone.
func (c contract) testSettleWaits(t *testing.T) {
	s, script := c.loaded(t)
	if script == nil {
		t.Skip("the stage follows no script")
	}
	before := taken(info(t, s))
	gate := script.Stall(c.op(), 1)
	t.Cleanup(gate.Release)
	working, stop := context.WithCancel(t.Context())
	defer stop()
	done := c.start(working, s)
	await(t, "the work to begin", gate.Entered())
	stop()
	waits(t, "Settle", "cancelled work", func(ctx context.Context) error { return s.Settle(ctx, c.name()) })
	if used := taken(info(t, s)); used <= before {
		t.Errorf("%d bytes are used by work that goes on, %d before it", used, before)
	}
	gate.Release()
	settled(t, s, c.name(), before)
	if o := await(t, "the work to end", done); !errors.Is(o.err, context.Canceled) {
		t.Errorf("the work that was cancelled: %v", o.err)
	}
}

func (c contract) testDrain(t *testing.T) {
	s, _ := c.loaded(t)
	ctx := patient(t)
	for range 2 {
		if err := s.Drain(ctx); err != nil {
			t.Fatalf("Drain: %v", err)
		}
	}
	if !info(t, s).Draining {
		t.Errorf("Info does not tell that the stage drains")
	}
	refuses(t, s, c.Request, "work while draining", stage.StageDraining)
	want(t, "Load while draining", s.Load(ctx, stage.LoadRequest{Component: c.name()}, nil), stage.StageDraining)
	if _, err := s.Plan(ctx, c.plan(t, s)); err != nil {
		t.Errorf("Plan while draining: %v", err)
	}
	if c.evict(t, s) <= 0 {
		t.Errorf("Evict while draining freed nothing")
	}
	for range 2 {
		if err := s.Undrain(ctx); err != nil {
			t.Fatalf("Undrain: %v", err)
		}
	}
	if info(t, s).Draining {
		t.Errorf("Info tells that the stage drains, which it does no more")
	}
	load(t, s, c.Request.Components...)
	works(t, s, c.Request)
}

func (c contract) testDrainWaits(t *testing.T) {
	s := c.underway(t, func(s stage.Stage) {
		waits(t, "Drain", "running work", s.Drain)
		refuses(t, s, c.Request, "work while draining", stage.StageDraining)
	})
	if err := s.Drain(patient(t)); err != nil {
		t.Errorf("Drain: %v", err)
	}
}
