package pipeline_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestStageLost: whatever a stage is lost with, the work is done again, and the images are the same.
func TestStageLost(t *testing.T) {
	for name, c := range map[string]struct {
		kind   stage.Kind
		op     stagetest.Op
		step   int
		reason stage.Reason
	}{
		"encoder dies":               {stage.KindEncoder, stagetest.OpEncode, 2, stage.RuntimeDied},
		"encoder dies while loading": {stage.KindEncoder, stagetest.OpLoad, 3, stage.RuntimeDied},
		"denoiser dies":              {stage.KindDenoiser, stagetest.OpDenoise, 8, stage.RuntimeDied},
		"decoder dies":               {stage.KindDecoder, stagetest.OpDecode, 2, stage.RuntimeDied},
		"denoiser evicted":           {stage.KindDenoiser, stagetest.OpDenoise, 1, stage.StageEvicted},
		"denoiser unreachable":       {stage.KindDenoiser, stagetest.OpDenoise, 8, stage.StageUnreachable},
		"decoder drains":             {stage.KindDecoder, stagetest.OpDecode, 1, stage.StageDraining},
		"denoiser finds no room":     {stage.KindDenoiser, stagetest.OpDenoise, 1, stage.DeviceBusy},
		"denoiser load has no room":  {stage.KindDenoiser, stagetest.OpLoad, 1, stage.DeviceBusy},
		"decoder is another's":       {stage.KindDecoder, stagetest.OpDecode, 1, stage.StageOwned},
		"denoiser load unreachable":  {stage.KindDenoiser, stagetest.OpLoad, 1, stage.StageUnreachable},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			spec := up(t).spec(t)
			quiet := up(t).good(t, spec)
			r := up(t)
			r.script(c.kind).Fail(c.op, c.step, stage.Errorf(c.reason, "scripted loss"))
			j := r.good(t, spec)
			same(t, j, quiet)
			warned := 0
			for _, w := range only[pipeline.Warning](j) {
				if (w.Code == pipeline.DeviceBusy) == (c.reason == stage.DeviceBusy) && strings.Contains(w.Message, "scripted loss") {
					warned++
				}
			}
			if warned != 1 && c.op != stagetest.OpLoad { // a load may be a prefetch, of which no job hears
				t.Errorf("warned %d times: %+v", warned, only[pipeline.Warning](j))
			}
			if c.op == stagetest.OpDenoise && c.step > 5 {
				d := r.Service(c.kind).Works("denoise")
				if len(d) != 2 || d[0].Resume != nil || d[1].Resume == nil || d[1].Resume.Step != 5 {
					t.Errorf("%d denoises, not the second from step 5", len(d))
				}
			}
			r.idle(t)
		})
	}
}

// TestDiesForEver: work that ends every runtime is given up.
func TestDiesForEver(t *testing.T) {
	for _, reason := range []stage.Reason{stage.RuntimeDied, stage.StageEvicted, stage.StageUnreachable} {
		t.Run(string(reason), func(t *testing.T) {
			r := over(fleettest.New(t, fleettest.Trio()...))
			var tries atomic.Int32
			r.Service(stage.KindDenoiser).Before = func(_ context.Context, call string) error {
				if call != "denoise" {
					return nil
				}
				tries.Add(1)
				return stage.Errorf(reason, "scripted loss")
			}
			for _, s := range r.Services {
				s.Start()
			}
			j := r.run(t, r.spec(t))
			if stage.ReasonOf(j.err) != reason || tries.Load() != 5 {
				t.Errorf("ended with %v after %d tries", j.err, tries.Load())
			}
			if n := len(only[pipeline.Warning](j)); n != 4 {
				t.Errorf("%d warnings", n)
			}
			r.idle(t)
		})
	}
}

// TestRefusedForEver: work that never finds the bytes which nobody is known to have ends with the numbers, and leaves nothing
// behind.
func TestRefusedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := over(fleettest.New(t, fleettest.Trio()...))
		tries := 0
		r.Service(stage.KindDenoiser).Before = func(_ context.Context, call string) error {
			if call != "denoise" {
				return nil
			}
			tries++
			return stage.Busy(stage.KindDenoiser, stagetest.Model, 9, 5, 20, 15, 0)
		}
		for _, s := range r.Services {
			s.Start()
		}
		j := r.run(t, r.spec(t))
		var e *stage.Error
		if !errors.As(j.err, &e) || e.Reason != stage.DeviceBusy || e.Metadata["others_bytes"] != "15" || tries != 30 {
			t.Errorf("ended with %v after %d tries", j.err, tries)
		}
		r.idle(t)
	})
}

// TestDiesButGetsOn: deaths between which the work gets further do not add up.
func TestDiesButGetsOn(t *testing.T) {
	r := up(t)
	r.CheckpointEveryNSteps = 1
	spec := r.spec(t)
	quiet := r.good(t, spec)
	for step := 2; step <= 9; step++ {
		r.script(stage.KindDenoiser).Fail(stagetest.OpDenoise, step, died())
	}
	same(t, r.good(t, spec), quiet)
}

// unreachable tells whether err names the kind of stage that is missing.
func unreachable(err error, kind stage.Kind) bool {
	var e *stage.Error
	return errors.As(err, &e) && e.Reason == stage.StageUnreachable && e.Metadata["stage"] == kind.String()
}

// TestMissingStage: a stage that is away when its turn comes is waited for until the deadline or as
// long as patience; the error names it.
func TestMissingStage(t *testing.T) {
	for _, kind := range stage.Kinds() {
		for _, limit := range []string{"deadline", "patience", "cancel"} {
			t.Run(kind.String()+"/"+limit, func(t *testing.T) {
				r := up(t)
				spec := r.spec(t)
				plan := r.planned(t, spec)
				if err := r.Service(kind).Stop(); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(fleettest.Soon(t))
				defer cancel()
				emit := func(pipeline.Event) {}
				switch limit {
				case "deadline":
					// What comes before the stage that is missing takes far less.
					ctx, cancel = context.WithTimeout(ctx, 2*time.Second)
					defer cancel()
				case "patience":
					r.Patience = 20 * time.Millisecond
				case "cancel":
					emit = func(e pipeline.Event) {
						if e, ok := e.(pipeline.Residency); ok && e.Action == residency.Wait && e.Kind == kind {
							cancel()
						}
					}
				}
				_, err := r.Run(ctx, "job", spec.job(), plan, emit)
				if limit == "cancel" && !errors.Is(err, context.Canceled) || limit != "cancel" && !unreachable(err, kind) {
					t.Errorf("ended with %v", err)
				}
				r.idle(t)
			})
		}
	}
}

// TestStageReturns: a service that goes away in the middle of the work and comes back empty.
func TestStageReturns(t *testing.T) {
	for kind, op := range ops {
		t.Run(kind.String(), func(t *testing.T) {
			spec := up(t).spec(t)
			quiet := up(t).good(t, spec)
			r := up(t)
			s := r.Service(kind)
			gate := s.Script.Hold(op, 2)
			j := r.start(fleettest.Soon(t), "job", spec)
			entered(t, gate)
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			j.events.Await(t, "the wait for the stage", func(e pipeline.Event) bool {
				d, ok := e.(pipeline.Residency)
				return ok && d.Action == residency.Wait && d.Kind == kind
			})
			s.Forget()
			s.Start()
			if <-j.done; j.err != nil {
				t.Fatal(j.err)
			}
			same(t, j, quiet)
		})
	}
}

// TestDeadlineAtWork: a deadline that ends work in a stage that is well is no fault of the stage.
func TestDeadlineAtWork(t *testing.T) {
	r := up(t)
	spec := r.spec(t)
	r.good(t, spec)
	r.script(stage.KindDenoiser).Fail(stagetest.OpDenoise, 3, died()) // that it was once lost does not matter
	r.script(stage.KindDenoiser).Hold(stagetest.OpDenoise, 4)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	j := r.start(ctx, "job", spec)
	if <-j.done; !errors.Is(j.err, context.DeadlineExceeded) || stage.ReasonOf(j.err) != "" {
		t.Errorf("ended with %v", j.err)
	}
	r.idle(t)
}

// TestDrainingStageIsReplaced: the replica takes over, even before the drain has been noticed.
func TestDrainingStageIsReplaced(t *testing.T) {
	a, b := fleettest.NewService(stage.KindDenoiser, "a"), fleettest.NewService(stage.KindDenoiser, "b")
	r := over(fleettest.New(t, append(fleettest.Trio(), a, b)...))
	for _, s := range r.Services {
		s.Start()
	}
	drained := 0
	for _, s := range r.Services {
		if s.Kind == stage.KindDenoiser && s != b {
			if err := s.Stage().Drain(fleettest.Soon(t)); err != nil {
				t.Fatal(err)
			}
			drained++
		}
	}
	r.good(t, r.spec(t))
	if drained != 2 || len(b.Works("denoise")) != 1 {
		t.Errorf("%d drained, the replica denoised %d times", drained, len(b.Works("denoise")))
	}
}

// TestWorkInDrainingStage: a stage that drains ends what it has begun, however little patience there
// is for a stage that is away.
func TestWorkInDrainingStage(t *testing.T) {
	r := up(t)
	r.Patience = time.Millisecond
	spec := r.spec(t)
	s := r.Service(stage.KindDenoiser)
	gate := s.Script.Hold(stagetest.OpDenoise, 3)
	j := r.start(fleettest.Soon(t), "job", spec)
	entered(t, gate)
	s.Edit(func(i *stage.Info) { i.Draining = true })
	guarded, done := r.Pipeline.Fleet.Guard(fleettest.Soon(t), s.Kind, []string{stagetest.Component(s.Kind, stagetest.Model)}, r.Patience)
	defer done()
	<-guarded.Done() // whoever waits for the stage loses patience now,
	s.Looks(t, 2)    // and many patiences later nothing has changed
	gate.Release()
	if <-j.done; j.err != nil {
		t.Errorf("ended with %v", j.err)
	}
}
