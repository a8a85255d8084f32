package pipeline_test

import (
	"sync/atomic"
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func isPreview(e pipeline.Event) bool { _, ok := e.(pipeline.Preview); return ok }

func isSkipped(e pipeline.Event) bool {
	w, ok := e.(pipeline.Warning)
	return ok && w.Code == pipeline.PreviewSkipped
}

func TestPreview(t *testing.T) {
	r := up(t)
	spec := r.spec(t).with("format", stage.TextOption("jpeg"))
	spec.PreviewEveryNSteps = 2
	gate := r.script(stage.KindDenoiser).Hold(stagetest.OpDenoise, 5)
	j := r.start(fleettest.Soon(t), "job", spec)
	entered(t, gate)
	j.events.Await(t, "a preview", isPreview)
	gate.Release()
	if <-j.done; j.err != nil {
		t.Fatal(j.err)
	}
	ended := false
	for _, e := range j.events.All() {
		switch e := e.(type) {
		case pipeline.Preview:
			if ended || e.Step%2 != 0 || e.File.WidthPx != 32 || e.File.Media != "image/png" {
				t.Errorf("preview of step %d, %dx%d %v, after the latent was done: %v", e.Step, e.File.WidthPx, e.File.HeightPx, e.File.Media, ended)
			}
		case pipeline.Progress:
			ended = ended || e.Kind == stage.KindDecoder
		case pipeline.Warning:
			t.Errorf("warned of %v", e)
		}
	}
}

// TestPreviewDoesNotHold: a preview that never ends holds up neither the steps nor the image.
func TestPreviewDoesNotHold(t *testing.T) {
	r := up(t)
	spec := r.spec(t)
	quiet := r.good(t, spec)
	spec.PreviewEveryNSteps = 1
	preview := r.script(stage.KindDecoder).Hold(stagetest.OpDecode, 1)
	step := r.script(stage.KindDenoiser).Hold(stagetest.OpDenoise, 3)
	j := r.start(fleettest.Soon(t), "job", spec)
	entered(t, step)
	entered(t, preview)
	step.Release()
	if <-j.done; j.err != nil {
		t.Fatal(j.err)
	}
	same(t, j, quiet)
	r.idle(t)
}

// TestNewestPreviewWins: while one is decoded, those that come replace each other.
func TestNewestPreviewWins(t *testing.T) {
	r := up(t)
	spec := r.spec(t)
	spec.PreviewEveryNSteps = 1
	decode := r.script(stage.KindDecoder).Hold(stagetest.OpDecode, 1)
	early, late := r.script(stage.KindDenoiser).Hold(stagetest.OpDenoise, 2), r.script(stage.KindDenoiser).Hold(stagetest.OpDenoise, 10)
	j := r.start(fleettest.Soon(t), "job", spec)
	entered(t, early)
	entered(t, decode) // of the preview of step 1
	early.Release()
	entered(t, late)
	j.events.Await(t, "step 9", func(e pipeline.Event) bool {
		p, ok := e.(pipeline.Progress)
		return ok && p.Kind == stage.KindDenoiser && p.Step == 9
	})
	decode.Release()
	j.events.Await(t, "the newest preview", func(e pipeline.Event) bool { p, ok := e.(pipeline.Preview); return ok && p.Step >= 8 })
	late.Release()
	<-j.done
	var steps []int
	for _, p := range only[pipeline.Preview](j) {
		steps = append(steps, p.Step)
	}
	if steps[0] != 1 || steps[1] < 8 {
		t.Errorf("previews of steps %v", steps)
	}
}

func TestPreviewSkipped(t *testing.T) {
	r := over(fleettest.New(t, fleettest.Trio()...))
	var large atomic.Bool
	r.Service(stage.KindDecoder).Made = func(i *stage.File) {
		if large.Load() {
			i.Data = make([]byte, pipeline.MaxPreviewBytes+1)
		}
	}
	for _, s := range r.Services {
		s.Start()
	}
	spec := r.spec(t)
	r.good(t, spec)
	spec.PreviewEveryNSteps = 1
	for _, why := range []string{"the decoder is busy", "the decoder fails", "the preview is large"} {
		var other *residency.Lease
		switch why {
		case "the decoder is busy":
			var err error
			other, err = r.Pipeline.Keeper.Acquire(fleettest.Soon(t), residency.AcquireRequest{Need: decoder(r.planned(t, spec))})
			if err != nil {
				t.Fatal(err)
			}
		case "the decoder fails":
			r.script(stage.KindDecoder).Fail(stagetest.OpDecode, 1, died())
		case "the preview is large":
			large.Store(true)
		}
		gate := r.script(stage.KindDenoiser).Hold(stagetest.OpDenoise, 9)
		j := r.start(fleettest.Soon(t), "job", spec)
		entered(t, gate)
		j.events.Await(t, why, isSkipped)
		if other != nil {
			other.Release()
		}
		gate.Release()
		if <-j.done; j.err != nil {
			t.Fatalf("%s: %v", why, j.err)
		}
		warnings := 0
		for _, w := range only[pipeline.Warning](j) {
			if isSkipped(w) {
				warnings++
			}
		}
		if warnings != 1 {
			t.Errorf("%s: warned %d times", why, warnings)
		}
	}
}
