package fleet_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// unreachable tells whether err names the kind of stage that is missing.
func unreachable(err error, kind stage.Kind) bool {
	var e *stage.Error
	return errors.As(err, &e) && e.Reason == stage.StageUnreachable && e.Metadata["stage"] == kind.String()
}

func expired(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// tiny is a turn of a kind, for latents of so many cells a side.
func tiny(kind stage.Kind, latent int64) stage.PlanRequest {
	w := stagetest.Request(kind)
	req := stage.PlanRequest{Turn: w.Turn, Components: w.Components, Options: stage.Options{}}
	if kind != stage.KindEncoder {
		req.Options["width"], req.Options["height"] = stage.IntOption(4*latent), stage.IntOption(4*latent)
	}
	return req
}

func TestModelWaits(t *testing.T) {
	r := fleettest.New(t, fleettest.Trio()...)
	r.Service(stage.KindEncoder).Start()
	r.Service(stage.KindDecoder).Start()
	if _, err := r.Fleet.Model(fleettest.Soon(t), stagetest.Model, 50*time.Millisecond); stage.ReasonOf(err) != stage.StageUnreachable {
		t.Errorf("patience ended with %v", err)
	}
	if _, err := r.Fleet.Model(expired(t), stagetest.Model, time.Hour); stage.ReasonOf(err) != stage.StageUnreachable {
		t.Errorf("the deadline ended with %v", err)
	}
	if _, err := r.Fleet.Model(cancelled(t), stagetest.Model, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("cancel ended with %v", err)
	}
	got := make(chan error)
	go func() {
		_, err := r.Fleet.Model(fleettest.Soon(t), stagetest.Model, time.Hour)
		got <- err
	}()
	r.Service(stage.KindDenoiser).Start()
	if err := <-got; err != nil {
		t.Errorf("once all are there: %v", err)
	}
	for name, reason := range map[string]stage.Reason{"sd9": stage.ModelNotFound, stagetest.Broken: stage.ModelInvalid} {
		if _, err := r.Fleet.Model(fleettest.Soon(t), name, time.Hour); stage.ReasonOf(err) != reason {
			t.Errorf("%s: %v, want %s", name, err, reason)
		}
	}
	// A model stays known while its stages are away.
	if err := r.Service(stage.KindDenoiser).Stop(); err != nil {
		t.Fatal(err)
	}
	if m, err := r.Fleet.Model(fleettest.Soon(t), stagetest.Model, time.Hour); err != nil || len(m.Recipes) != 1 {
		t.Errorf("with a stage away: %+v, %v", m, err)
	}
}

func TestPlanWaits(t *testing.T) {
	const kind = stage.KindDenoiser
	r := fleettest.New(t, fleettest.Trio()...)
	s := r.Service(kind)
	var asked atomic.Int32
	s.Before = func(context.Context, string) error {
		asked.Add(1)
		return nil
	}
	if _, err := r.Fleet.Plan(expired(t), kind, tiny(kind, 8), nil, nil); !unreachable(err, kind) {
		t.Errorf("the deadline ended with %v", err)
	}
	guarded, done := r.Fleet.Guard(fleettest.Soon(t), kind, tiny(kind, 8).Components, time.Millisecond)
	defer done()
	if _, err := r.Fleet.Plan(guarded, kind, tiny(kind, 8), nil, nil); !unreachable(err, kind) {
		t.Errorf("patience ended with %v", err)
	}
	if _, err := r.Fleet.Plan(cancelled(t), kind, tiny(kind, 8), nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancel ended with %v", err)
	}
	got := make(chan error)
	go func() {
		_, err := r.Fleet.Plan(fleettest.Soon(t), kind, tiny(kind, 8), nil, nil)
		got <- err
	}()
	s.Start()
	if err := <-got; err != nil {
		t.Errorf("once it is there: %v", err)
	}
	before := asked.Load()
	if _, err := r.Fleet.Plan(cancelled(t), kind, tiny(kind, 8), nil, nil); err != nil || asked.Load() != before {
		t.Errorf("the same again: %v, asked %d times", err, asked.Load()-before)
	}
	if _, err := r.Fleet.Plan(fleettest.Soon(t), kind, tiny(kind, 7), nil, nil); stage.ReasonOf(err) != stage.SizeUnsupported {
		t.Errorf("a bad size: %v", err)
	}
}

// TestPlanAsksTheDisk: whether a temporary file has room is asked for every request.
func TestPlanAsksTheDisk(t *testing.T) {
	const kind = stage.KindDecoder
	r := fleettest.New(t, fleettest.Trio()...)
	s := r.Service(kind)
	full := false
	s.Before = func(context.Context, string) error {
		if full {
			return stage.Errorf(stage.DiskFull, "scripted")
		}
		return nil
	}
	s.Planned = func(f *stage.Footprint) { f.SpillBytes = 1 }
	s.Start()
	f, err := r.Fleet.Plan(fleettest.Soon(t), kind, tiny(kind, 8), nil, nil)
	if err != nil || len(f) != 1 {
		t.Fatal(f, err)
	}
	for _, f := range f {
		if f.SpillBytes != 1 {
			t.Fatal(f)
		}
	}
	full = true
	if _, err := r.Fleet.Plan(fleettest.Soon(t), kind, tiny(kind, 8), nil, nil); stage.ReasonOf(err) != stage.DiskFull {
		t.Errorf("once the disk is full: %v", err)
	}
}

func TestPlanGivesUp(t *testing.T) {
	const kind = stage.KindEncoder
	r := fleettest.New(t, fleettest.Trio()...)
	s := r.Service(kind)
	var asked atomic.Int32
	hangs := make(chan struct{})
	s.Before = func(ctx context.Context, _ string) error {
		if asked.Add(1) <= 6 {
			return stage.Errorf(stage.RuntimeDied, "scripted death")
		}
		close(hangs)
		<-ctx.Done()
		return ctx.Err()
	}
	s.Start()
	if _, err := r.Fleet.Plan(fleettest.Soon(t), kind, tiny(kind, 8), nil, nil); stage.ReasonOf(err) != stage.RuntimeDied || asked.Load() != 6 {
		t.Errorf("deaths ended with %v after %d", err, asked.Load())
	}
	// Patience ends a call that hangs in a service that is no longer there; the cause is told.
	guarded, done := r.Fleet.Guard(fleettest.Soon(t), kind, tiny(kind, 8).Components, time.Millisecond)
	defer done()
	got := make(chan error)
	go func() {
		_, err := r.Fleet.Plan(guarded, kind, tiny(kind, 8), nil, nil)
		got <- err
	}()
	<-hangs
	s.Edit(func(i *stage.Info) { i.Draining = true })
	if err := <-got; !unreachable(err, kind) {
		t.Errorf("patience ended a call with %v", err)
	}
}

func TestGuard(t *testing.T) {
	const kind = stage.KindDecoder
	r := fleettest.Up(t)
	s := r.Service(kind)
	// Shorter than the time between two looks: a service that is there is there between them too.
	guarded, done := r.Fleet.Guard(fleettest.Soon(t), kind, tiny(kind, 8).Components, time.Millisecond)
	defer done()
	s.Looks(t, 2)
	if guarded.Err() != nil {
		t.Fatalf("ended although the service is there: %v", context.Cause(guarded))
	}
	// A service that has other models only is as good as none.
	other, doneToo := r.Fleet.Guard(fleettest.Soon(t), kind, []string{"sd9/vae.decoder"}, time.Millisecond)
	defer doneToo()
	<-other.Done()
	if err := r.Fleet.Ended(other, kind, true); !unreachable(err, kind) {
		t.Errorf("without the model: %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	<-guarded.Done()
	if err := r.Fleet.Ended(guarded, kind, false); !unreachable(err, kind) {
		t.Errorf("without the service: %v", err)
	}
}

func TestEnded(t *testing.T) {
	with := func(cause error) context.Context {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		return ctx
	}
	late := expired(t)
	<-late.Done()
	r := fleettest.New(t)
	for name, c := range map[string]struct {
		ctx     context.Context
		failing bool
		reason  stage.Reason
		is      error
	}{
		"cancelled":             {cancelled(t), false, "", context.Canceled},
		"cancelled and failing": {cancelled(t), true, "", context.Canceled},
		"late":                  {late, false, "", context.DeadlineExceeded},
		"late and failing":      {late, true, stage.StageUnreachable, nil},
		"a reason":              {with(stage.Errorf(stage.SlowConsumer, "slow")), true, stage.SlowConsumer, nil},
		"another cause":         {with(errors.New("other")), true, "", context.Canceled},
	} {
		err := r.Fleet.Ended(c.ctx, stage.KindEncoder, c.failing)
		if stage.ReasonOf(err) != c.reason || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
