package pipeline_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestCancelledWorkCounts: a stage that goes on for a while after the caller has gone keeps its lease, and what it holds
// counts; the caller does not wait for it, but the next job does.
func TestCancelledWorkCounts(t *testing.T) {
	for kind, op := range ops {
		t.Run(kind.String(), func(t *testing.T) {
			r := up(t)
			spec := r.spec(t)
			r.good(t, spec) // all is resident
			r.idle(t)
			before := r.Used()
			gate := r.script(kind).Stall(op, 2)
			defer gate.Release()
			ctx, cancel := context.WithCancel(fleettest.Soon(t))
			j := r.start(ctx, "job", spec)
			entered(t, gate)
			during := r.Used()
			cancel()
			if <-j.done; !errors.Is(j.err, context.Canceled) {
				t.Errorf("ended with %v", j.err)
			}
			if now := r.Used(); now != during || now <= before {
				t.Fatalf("%d bytes count while the work goes on, %d before it was cancelled, %d without it", now, during, before)
			}
			heard := len(j.events.All())
			next := r.start(fleettest.Soon(t), "next", spec)
			next.events.Await(t, "the wait", func(e pipeline.Event) bool {
				d, ok := e.(pipeline.Residency)
				return ok && d.Action == residency.Wait && d.Kind == kind
			})
			gate.Release()
			if <-next.done; next.err != nil {
				t.Fatal(next.err)
			}
			r.idle(t)
			if now := r.Used(); now != before {
				t.Errorf("%d bytes count in the end, %d before", now, before)
			}
			if n := len(j.events.All()); n != heard {
				t.Errorf("the job that was cancelled heard of %+v", j.events.All()[heard:])
			}
		})
	}
}

// TestCancelledImageCounts: so does the encoding of a picture.
func TestCancelledImageCounts(t *testing.T) {
	r := up(t)
	spec := r.spec(t).photo()
	r.good(t, spec)
	r.idle(t)
	before := r.Used()
	gate := r.script(stage.KindDecoder).Stall(stagetest.OpEncodeImage, 1)
	defer gate.Release()
	ctx, cancel := context.WithCancel(fleettest.Soon(t))
	j := r.start(ctx, "job", spec)
	entered(t, gate)
	cancel()
	<-j.done
	r.Events.Await(t, "the end of all other work", func(residency.Event) bool {
		busy := 0
		for _, s := range r.Pipeline.Keeper.Snapshot().Stages {
			if s.Leased {
				busy++
			}
		}
		return busy == 1
	})
	if now, scratch := r.Used(), takes(r.planned(t, spec), stagetest.OpEncodeImage).ScratchBytes; now != before+scratch {
		t.Errorf("%d bytes count while the picture is encoded, %d before, and it takes %d", now, before, scratch)
	}
	gate.Release()
	r.idle(t)
	if now := r.Used(); now != before {
		t.Errorf("%d bytes count in the end, %d before", now, before)
	}
}

// TestPreviewSettles: what a preview that was cut off still holds counts until the decoder has noticed, before the image is decoded.
func TestPreviewSettles(t *testing.T) {
	r := up(t)
	spec := r.spec(t)
	spec.PreviewEveryNSteps = 1
	preview := r.script(stage.KindDecoder).Stall(stagetest.OpDecode, 1)
	defer preview.Release()
	step := r.script(stage.KindDenoiser).Hold(stagetest.OpDenoise, 3)
	j := r.start(fleettest.Soon(t), "job", spec)
	entered(t, step)
	entered(t, preview)
	step.Release()
	j.events.Await(t, "the wait", func(e pipeline.Event) bool {
		d, ok := e.(pipeline.Residency)
		return ok && d.Action == residency.Wait && d.Kind == stage.KindDecoder
	})
	preview.Release()
	if <-j.done; j.err != nil {
		t.Fatal(j.err)
	}
	r.idle(t)
}

// TestPanicSettles: so does what work holds whose caller panics in it.
func TestPanicSettles(t *testing.T) {
	r := up(t)
	spec := r.spec(t)
	plan := r.planned(t, spec)
	gate := r.script(stage.KindDenoiser).Stall(stagetest.OpDenoise, 3)
	ctx, cancel := context.WithCancel(fleettest.Soon(t))
	done := make(chan any)
	go func() {
		defer func() { done <- recover() }()
		_, _ = r.Run(ctx, "job", spec.job(), plan, func(e pipeline.Event) {
			if p, ok := e.(pipeline.Progress); ok && p.Kind == stage.KindDenoiser && p.Step == 2 {
				<-gate.Entered()
				cancel() // the panic does not wait
				panic("scripted")
			}
		})
	}()
	if why, ok := (<-done).(string); !ok || !strings.HasPrefix(why, "scripted\n") || !strings.Contains(why, "settle_test.go") {
		t.Fatalf("recovered %q", why)
	}
	if !r.Leased() {
		t.Error("the lease ended before the work")
	}
	gate.Release()
	r.idle(t)
}
