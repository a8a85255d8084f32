package stagetest

import (
	"context"
	"errors"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

func (c contract[S]) testWorkNeedsModel(t *testing.T) {
	s, _ := c.Open(t)
	ctx := patient(t)
	_, err := c.work(ctx, s, c.Model)
	want(t, "work before Load", err, stage.StageEvicted)
	_, err = c.work(ctx, s, nobody)
	c.wantNotFound(t, "work", err)
	if err := s.Load(ctx, stage.LoadRequest{Model: c.Model}, nil); err != nil {
		t.Fatalf("Load: %v", err)
	}
	if _, err := c.work(ctx, s, c.Model); err != nil {
		t.Fatalf("work after Load: %v", err)
	}
	if _, err := c.evict(ctx, s); err != nil {
		t.Fatalf("Evict: %v", err)
	}
	_, err = c.work(ctx, s, c.Model)
	want(t, "work after Evict", err, stage.StageEvicted)
}

func (c contract[S]) testWorkCounted(t *testing.T) {
	s, _ := c.loaded(t)
	before := info(t, s)
	if _, err := c.work(patient(t), s, c.Model); err != nil {
		t.Fatalf("work: %v", err)
	}
	after := info(t, s)
	if after.UsedBytes != before.UsedBytes {
		t.Errorf("work left %d bytes behind", after.UsedBytes-before.UsedBytes)
	}
	if after.PeakBytes <= before.UsedBytes {
		t.Errorf("work took no scratch: peak %d, used before %d", after.PeakBytes, before.UsedBytes)
	}
	if after.Generation != before.Generation {
		t.Errorf("work changed the generation from %d to %d", before.Generation, after.Generation)
	}
}

func (c contract[S]) testWorkTogether(t *testing.T) {
	s, _ := c.loaded(t)
	ctx := patient(t)
	alone, err := c.work(ctx, s, c.Model)
	if err != nil {
		t.Fatalf("work: %v", err)
	}
	const n = 4
	results := make([]any, n)
	together(n, func(i int) {
		if _, err := s.Info(ctx); err != nil {
			t.Errorf("Info: %v", err)
		}
		result, err := c.work(ctx, s, c.Model)
		if err != nil {
			t.Errorf("work: %v", err)
		}
		results[i] = result
	})
	for _, r := range results {
		same(t, "results alone and at once", alone, r)
	}
}

func (c contract[S]) testWorkCancelled(t *testing.T) {
	t.Run("Before", func(t *testing.T) {
		s, _ := c.loaded(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.work(ctx, s, c.Model); !errors.Is(err, context.Canceled) {
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
		if e, err := c.evict(patient(t), s); err != nil || e.FreedBytes <= 0 { // waits for the work
			t.Errorf("Evict after cancelled work = %+v, %v", e, err)
		}
		if n := script.Steps(c.op); n > 2 {
			t.Errorf("cancelled at step 1, the work went on to step %d", n)
		}
		if i := info(t, s); i.UsedBytes != 0 {
			t.Errorf("cancelled work left %d bytes behind", i.UsedBytes)
		}
	})
}

func (c contract[S]) testSettle(t *testing.T) {
	s, _ := c.loaded(t)
	for _, model := range []string{c.Model, nobody, ""} {
		if err := s.Settle(patient(t), model); err != nil {
			t.Errorf("Settle of %q without work: %v", model, err)
		}
	}
	if i := info(t, s); !holds(i, c.Model) {
		t.Errorf("after Settle, resident are %v", i.Resident)
	}
	if _, err := c.evict(patient(t), s); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle(patient(t), c.Model); err != nil {
		t.Errorf("Settle of what is not resident: %v", err)
	}
}

// testSettleWaits: for work that goes on although its caller has gone.
func (c contract[S]) testSettleWaits(t *testing.T) {
	s, script := c.loaded(t)
	if script == nil {
		t.Skip("the stage follows no script")
	}
	before := info(t, s).UsedBytes
	gate := script.Stall(c.op, 1)
	t.Cleanup(gate.Release)
	working, stop := context.WithCancel(t.Context())
	defer stop()
	done := c.start(working, s)
	await(t, "the work to begin", gate.Entered())
	stop()
	ctx, cancel := context.WithTimeout(t.Context(), glimpse)
	defer cancel()
	if err := s.Settle(ctx, c.Model); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Settle did not wait for cancelled work: %v", err)
	}
	if used := info(t, s).UsedBytes; used <= before {
		t.Errorf("%d bytes are used by work that goes on, %d before it", used, before)
	}
	gate.Release()
	if err := s.Settle(patient(t), c.Model); err != nil {
		t.Errorf("Settle: %v", err)
	}
	if used := info(t, s).UsedBytes; used != before {
		t.Errorf("%d bytes are used when the work has settled, %d before it", used, before)
	}
	if o := await(t, "the work to end", done); !errors.Is(o.err, context.Canceled) {
		t.Errorf("the work that was cancelled: %v", o.err)
	}
}

func (c contract[S]) testDrain(t *testing.T) {
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
	_, err := c.work(ctx, s, c.Model)
	want(t, "work while draining", err, stage.StageDraining)
	want(t, "Load while draining", s.Load(ctx, stage.LoadRequest{Model: c.Model}, nil), stage.StageDraining)
	if _, err := s.Plan(ctx, c.plan); err != nil {
		t.Errorf("Plan while draining: %v", err)
	}
	if e, err := c.evict(ctx, s); err != nil || e.FreedBytes <= 0 {
		t.Errorf("Evict while draining = %+v, %v", e, err)
	}
	for range 2 {
		if err := s.Undrain(ctx); err != nil {
			t.Fatalf("Undrain: %v", err)
		}
	}
	if info(t, s).Draining {
		t.Errorf("Info tells that the stage drains, which it does no more")
	}
	if err := s.Load(ctx, stage.LoadRequest{Model: c.Model}, nil); err != nil {
		t.Fatalf("Load behind Undrain: %v", err)
	}
	if _, err := c.work(ctx, s, c.Model); err != nil {
		t.Errorf("work behind Undrain: %v", err)
	}
}

func (c contract[S]) testDrainWaits(t *testing.T) {
	s, _, gate := c.held(t)
	done := c.start(patient(t), s)
	await(t, "the work to begin", gate.Entered())
	ctx, cancel := context.WithTimeout(t.Context(), glimpse)
	defer cancel()
	if err := s.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain did not wait for running work: %v", err)
	}
	_, err := c.work(patient(t), s, c.Model)
	want(t, "work while draining", err, stage.StageDraining)
	gate.Release()
	if o := await(t, "the work to end", done); o.err != nil {
		t.Errorf("the work that Drain waited for: %v", o.err)
	}
	if err := s.Drain(patient(t)); err != nil {
		t.Errorf("Drain: %v", err)
	}
}
