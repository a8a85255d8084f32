package pipeline_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// ops are what the stages do in a job.
var ops = map[stage.Kind]stagetest.Op{
	stage.KindEncoder: stagetest.OpEncode, stage.KindDenoiser: stagetest.OpDenoise, stage.KindDecoder: stagetest.OpDecode,
}

// pairs is a pipeline over two services of each kind, the first of which is taken where both could be.
func pairs(t *testing.T, edit func(*stage.Info)) *rig {
	t.Helper()
	var all []*fleettest.Service
	for _, kind := range stage.Kinds() {
		all = append(all, fleettest.NewService(kind, kind.String()+"1"), fleettest.NewService(kind, kind.String()+"2"))
	}
	r := fleettest.New(t, all...)
	for _, s := range all {
		if edit != nil {
			s.Edit(edit)
		}
		s.Start()
	}
	r.Known(t)
	time.Sleep(time.Second) // of the bubble: a service that was dialled before it listened is dialled again
	synctest.Wait()
	return over(r)
}

// second is the second service of a kind.
func (r *rig) second(kind stage.Kind) *fleettest.Service {
	for _, s := range r.Services {
		if s.Kind == kind && strings.HasSuffix(s.Address, "2") {
			return s
		}
	}
	panic("there is none")
}

// warnings counts those of a code.
func (j *job) warnings(code string) (n int) {
	for _, w := range only[pipeline.Warning](j) {
		if w.Code == code {
			n++
		}
	}
	return n
}

// TestMuteStageIsReplaced: work in a stage that does not answer goes on in another one, from the last checkpoint, and its
// caller is told; the stage has its lease until it says that nothing is done there any more.
func TestMuteStageIsReplaced(t *testing.T) {
	for kind, op := range ops {
		t.Run(kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := pairs(t, nil)
				spec := r.spec(t)
				quiet := r.good(t, spec)
				r.idle(t)
				step := map[stage.Kind]int{stage.KindDenoiser: 8}[kind] + 1
				gate := r.Service(kind).Script.Stall(op, step)
				j := r.start(fleettest.Soon(t), "job", spec)
				entered(t, gate)
				begin := time.Now()
				answer := r.Service(kind).Hang()
				defer answer()
				if <-j.done; j.err != nil {
					t.Fatal(j.err)
				}
				same(t, j, quiet)
				if took := time.Since(begin); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
				if j.warnings(pipeline.StageSilent) != 1 || j.warnings(pipeline.StageRestarted) != 1 {
					t.Errorf("warned of %+v", only[pipeline.Warning](j))
				}
				if d := r.second(stage.KindDenoiser).Works("denoise"); kind == stage.KindDenoiser && (len(d) != 1 || d[0].Resume == nil || d[0].Resume.Step != 5) {
					t.Errorf("%d denoises, not one from step 5", len(d))
				}
				time.Sleep(time.Minute)
				if !r.Leased() {
					t.Error("the silent stage has no lease, and may still be at work")
				}
				answer()
				gate.Release()
				r.idle(t)
				same(t, r.good(t, spec), quiet)
			})
		})
	}
}

// TestMuteStageAlone: without another stage the caller hears why nothing happens, and the work goes on when the stage answers.
func TestMuteStageAlone(t *testing.T) {
	for kind, op := range ops {
		t.Run(kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := up(t)
				gate := r.script(kind).Hold(op, 2)
				j := r.start(fleettest.Soon(t), "job", r.spec(t))
				entered(t, gate)
				answer := r.Service(kind).Hang()
				j.events.Await(t, "the warning", func(e pipeline.Event) bool {
					w, ok := e.(pipeline.Warning)
					return ok && w.Code == pipeline.StageSilent && strings.Contains(w.Message, r.Service(kind).Address)
				})
				j.events.Await(t, "the wait", func(e pipeline.Event) bool {
					d, ok := e.(pipeline.Residency)
					return ok && d.Action == residency.Wait && d.Kind == kind
				})
				time.Sleep(20 * time.Second)
				answer()
				synctest.Wait()
				time.Sleep(time.Second)
				gate.Release()
				if <-j.done; j.err != nil {
					t.Fatal(j.err)
				}
				if j.warnings(pipeline.StageRestarted) > 0 {
					t.Errorf("it was begun again: %+v", only[pipeline.Warning](j))
				}
				r.idle(t)
			})
		})
	}
}

// TestCancelMute: a caller who gives up a stage that does not answer is gone at once.
func TestCancelMute(t *testing.T) {
	for kind, op := range ops {
		t.Run(kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := up(t)
				gate := r.script(kind).Stall(op, 2)
				ctx, cancel := context.WithCancel(t.Context())
				j := r.start(ctx, "job", r.spec(t))
				entered(t, gate)
				answer := r.Service(kind).Hang()
				time.Sleep(10 * time.Second)
				begin := time.Now()
				cancel()
				if <-j.done; !errors.Is(j.err, context.Canceled) || j.warnings(pipeline.StageSilent) != 1 || time.Since(begin) > 0 {
					t.Errorf("ended with %v after %v, warned of %+v", j.err, time.Since(begin), only[pipeline.Warning](j))
				}
				answer()
				gate.Release()
				r.idle(t)
			})
		})
	}
}

// TestDeadlineMute: a deadline that ends work in a stage which does not answer is the stage's fault.
func TestDeadlineMute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const kind = stage.KindDenoiser
		r := up(t)
		gate := r.script(kind).Stall(stagetest.OpDenoise, 2)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		j := r.start(ctx, "job", r.spec(t))
		entered(t, gate)
		answer := r.Service(kind).Hang()
		if <-j.done; !unreachable(j.err, kind) {
			t.Errorf("ended with %v", j.err)
		}
		answer()
		gate.Release()
		r.idle(t)
	})
}

// TestMuteStageBusyReplica: the work moves when the other stage is free.
func TestMuteStageBusyReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const kind = stage.KindDenoiser
		r := pairs(t, nil)
		spec := r.spec(t)
		gate, other := r.Service(kind).Script.Stall(stagetest.OpDenoise, 8), r.second(kind).Script.Hold(stagetest.OpDenoise, 2)
		j := r.start(fleettest.Soon(t), "job", spec)
		entered(t, gate)
		busy := r.start(fleettest.Soon(t), "busy", spec)
		entered(t, other)
		defer r.Service(kind).Hang()()
		time.Sleep(30 * time.Second)
		if j.warnings(pipeline.StageSilent) != 1 || j.warnings(pipeline.StageRestarted) > 0 {
			t.Errorf("warned of %+v", only[pipeline.Warning](j))
		}
		other.Release()
		<-busy.done
		if <-j.done; j.err != nil || busy.err != nil {
			t.Fatal(j.err, busy.err)
		}
		same(t, j, busy)
		gate.Release()
	})
}

// TestMuteStageHoldsTheBytes: work does not move where the silent stage holds the device's bytes, and the caller hears so.
func TestMuteStageHoldsTheBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const kind = stage.KindDenoiser
		r := pairs(t, func(i *stage.Info) { i.MemoryBudgetBytes = 7000 })
		gate := r.Service(kind).Script.Hold(stagetest.OpDenoise, 2)
		j := r.start(fleettest.Soon(t), "job", r.spec(t))
		entered(t, gate)
		answer := r.Service(kind).Hang()
		j.events.Await(t, "the reason", func(e pipeline.Event) bool {
			d, ok := e.(pipeline.Residency)
			return ok && d.Action == residency.Wait && d.Kind == kind && strings.Contains(d.Reason, "in use")
		})
		time.Sleep(20 * time.Second)
		answer()
		time.Sleep(time.Second)
		gate.Release()
		if <-j.done; j.err != nil || len(r.second(kind).Works("denoise")) > 0 {
			t.Fatal(j.err, r.second(kind).Works("denoise"))
		}
	})
}

// TestSlowAnswers: a stage whose work gets on is not left because it lets questions wait.
func TestSlowAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const kind = stage.KindDenoiser
		r := pairs(t, nil)
		script := r.Service(kind).Script
		gate := script.Hold(stagetest.OpDenoise, 1)
		j := r.start(fleettest.Soon(t), "job", r.spec(t))
		for step := 2; step <= 12; step++ {
			entered(t, gate)
			if step == 2 {
				defer r.Service(kind).Hang()()
			}
			next := script.Hold(stagetest.OpDenoise, step)
			time.Sleep(4 * time.Second)
			gate.Release()
			gate = next
		}
		gate.Release()
		if <-j.done; j.err != nil || j.warnings(pipeline.StageSilent) > 0 {
			t.Fatalf("ended with %v, warned of %+v", j.err, only[pipeline.Warning](j))
		}
	})
}

// TestMuteWhileLoading: a load that does not get on because the stage does not answer is not waited for where there is another
// stage.
func TestMuteWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const kind = stage.KindDecoder
		r := pairs(t, nil)
		spec := r.spec(t)
		gate := r.Service(kind).Script.Stall(stagetest.OpLoad, 2)
		j := r.start(fleettest.Soon(t), "job", spec)
		entered(t, gate)
		begin := time.Now()
		answer := r.Service(kind).Hang()
		if <-j.done; j.err != nil {
			t.Fatal(j.err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		answer()
		gate.Release()
		r.idle(t)
		r.good(t, spec)
	})
}

// TestAbsentStage: a job that waits because nobody answers hears so.
func TestAbsentStage(t *testing.T) {
	for name, away := range map[string]func(*testing.T, *fleettest.Service) (back func()){
		"gone": func(t *testing.T, s *fleettest.Service) func() {
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			return s.Start
		},
		"mute": func(_ *testing.T, s *fleettest.Service) func() { return s.Hang() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := up(t)
				spec := r.spec(t)
				r.good(t, spec) // what it takes is known
				back := away(t, r.Service(stage.KindDecoder))
				time.Sleep(10 * time.Second)
				j := r.start(fleettest.Soon(t), "job", spec)
				j.events.Await(t, "the warning", func(e pipeline.Event) bool {
					w, ok := e.(pipeline.Warning)
					return ok && w.Code == pipeline.StageSilent && strings.HasPrefix(w.Message, "no decoder service that has the model answers; ") && strings.HasSuffix(w.Message, "; the work waits")
				})
				back()
				if <-j.done; j.err != nil || j.warnings(pipeline.StageSilent) != 1 {
					t.Errorf("ended with %v, warned of %+v", j.err, only[pipeline.Warning](j))
				}
			})
		})
	}
}
