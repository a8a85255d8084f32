package api

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// shutDown wants the error of an orchestrator that shuts down, with a time to try again.
func shutDown(t *testing.T, err error) {
	t.Helper()
	refused(t, err, codes.Unavailable, stage.ShuttingDown)
	if retry(err) == 0 {
		t.Errorf("it does not say when to try again: %v", err)
	}
}

// draining begins to drain a service until ctx ends, and returns when it refuses new requests.
func (r *rig) draining(ctx context.Context, t *testing.T) (drained <-chan struct{}) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.service.Drain(ctx)
	}()
	begun := func() bool {
		r.service.drain.mu.Lock()
		defer r.service.drain.mu.Unlock()
		return r.service.drain.begun
	}
	for soon := fleettest.Soon(t); !begun(); {
		if soon.Err() != nil {
			t.Fatal("it does not drain")
		}
	}
	_, err := r.generate(t, small())
	shutDown(t, err)
	return done
}

// TestDrain: what runs ends well, what is new is refused, and who watches hears of the end when all has ended.
func TestDrain(t *testing.T) {
	r := up(t, nil)
	gate := r.Service(stage.KindDenoiser).Script.Hold(stagetest.OpDenoise, 3)
	watch, _ := r.watch(fleettest.Soon(t), t)
	stream := r.start(fleettest.Soon(t), t, small())
	<-gate.Entered()
	drained := r.draining(t.Context(), t)
	select {
	case <-drained:
		t.Error("it has drained, and a request runs")
	default:
	}
	gate.Release()
	events, err := rest(stream)
	if err != nil || events[len(events)-1].GetCompleted() == nil {
		t.Errorf("the request that ran: %v", err)
	}
	<-drained
	for err = nil; err == nil; {
		_, err = watch.Recv()
	}
	shutDown(t, err)
	if _, err := r.models.ListModels(t.Context(), &triptychv1alpha1.ListModelsRequest{}); err != nil {
		t.Errorf("ListModels: %v", err)
	}
}

// TestDrainCuts: what runs in the end is cut, whether it works, waits for a stage or for one to be there.
func TestDrainCuts(t *testing.T) {
	r := up(t, nil)
	gate := r.Service(stage.KindDenoiser).Script.Hold(stagetest.OpDenoise, 3)
	works := r.start(fleettest.Soon(t), t, small())
	<-gate.Entered()
	waits := r.start(fleettest.Soon(t), t, small())
	if _, err := waits.Recv(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	drained := r.draining(ctx, t)
	cancel()
	for _, stream := range []interface {
		Recv() (*response, error)
	}{works, waits} {
		var err error
		for err == nil {
			_, err = stream.Recv()
		}
		shutDown(t, err)
	}
	<-drained
}

// TestDrainCutsPlanning: nor does a request go on that could not be planned yet, for want of a stage.
func TestDrainCutsPlanning(t *testing.T) {
	r := over(t, fleettest.New(t, fleettest.Trio()...), nil)
	stream := r.start(fleettest.Soon(t), t, small())
	for soon := fleettest.Soon(t); len(r.service.places) == 0; {
		if soon.Err() != nil {
			t.Fatal("the request does not come")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	drained := r.draining(ctx, t)
	cancel()
	_, err := rest(stream)
	shutDown(t, err)
	<-drained
}

// TestDrainTold: a call that was cut is told so wherever it notices, and no other error is hidden.
func TestDrainTold(t *testing.T) {
	d := newDrain()
	call, leave, err := d.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	if err := d.told(call, context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("of a caller who went away: %v", err)
	}
	d.cutNow(errShuttingDown)
	<-call.Done()
	if err := d.told(call, context.Canceled); stage.ReasonOf(err) != stage.ShuttingDown {
		t.Errorf("of a call that was cut: %v", err)
	}
	if err := d.told(call, stage.Errorf(stage.ModelNotFound, "no")); stage.ReasonOf(err) != stage.ModelNotFound {
		t.Errorf("of a call that has failed: %v", err)
	}
	if err := d.told(call, nil); err != nil {
		t.Errorf("of a call that has ended well: %v", err)
	}
}
