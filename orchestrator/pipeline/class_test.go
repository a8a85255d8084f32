package pipeline_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// threads are a service's: what a turn takes there grows with them.
func threads(s *fleettest.Service, n int) *fleettest.Service {
	s.Script.Threads(n)
	return s
}

// TestClasses: a turn is planned by the class of services that does the work, and reserved as that says.
func TestClasses(t *testing.T) {
	const kind = stage.KindDenoiser
	wide := threads(fleettest.NewService(kind, "wide"), 4)
	r := over(fleettest.New(t, append(fleettest.Trio(), wide)...))
	for _, s := range r.Services {
		s.Start()
	}
	r.Known(t)
	wide.Looks(t, 2)
	spec := r.spec(t)
	plan := r.planned(t, spec).Turns["denoise"]
	if len(plan) != 2 || plan["fake, 4 threads"].ScratchBytes != 4*plan["fake, 1 thread"].ScratchBytes {
		t.Fatalf("planned %+v", plan)
	}
	gate := r.script(kind).Hold(stagetest.OpDenoise, 2)
	first := r.start(fleettest.Soon(t), "first", spec)
	other := wide.Script.Hold(stagetest.OpDenoise, 2)
	second := r.start(fleettest.Soon(t), "second", spec)
	entered(t, gate)
	entered(t, other)
	for _, v := range r.Pipeline.Keeper.Snapshot().Stages {
		if v.Kind == kind && v.ScratchBytes != plan[map[bool]string{true: "fake, 4 threads", false: "fake, 1 thread"}[v.Stage == wide.ID()]].ScratchBytes {
			t.Errorf("%s works with %d bytes of scratch", v.Stage, v.ScratchBytes)
		}
	}
	gate.Release()
	other.Release()
	<-first.done
	if <-second.done; first.err != nil || second.err != nil {
		t.Fatal(first.err, second.err)
	}
	same(t, second, first)
}

// TestClassJoins: a job that waits takes a service of a class that joined meanwhile.
func TestClassJoins(t *testing.T) {
	const kind = stage.KindDenoiser
	late := threads(fleettest.NewService(kind, "late"), 4)
	r := over(fleettest.New(t, append(fleettest.Trio(), late)...))
	for _, s := range r.Services {
		if s != late {
			s.Start()
		}
	}
	r.Known(t)
	spec := r.spec(t)
	gate := r.script(kind).Hold(stagetest.OpDenoise, 2)
	busy := r.start(fleettest.Soon(t), "busy", spec)
	entered(t, gate)
	waits := r.start(fleettest.Soon(t), "waits", spec)
	waits.events.Await(t, "the wait", func(e pipeline.Event) bool {
		q, ok := e.(pipeline.Queued)
		return ok && q.Kind == kind
	})
	late.Start()
	if <-waits.done; waits.err != nil || len(late.Works("denoise")) != 1 {
		t.Fatalf("ended with %v, the service that joined denoised %d times", waits.err, len(late.Works("denoise")))
	}
	gate.Release()
	if <-busy.done; busy.err != nil {
		t.Fatal(busy.err)
	}
	same(t, waits, busy)
}

// TestClassDoesNotFit: services whose device cannot hold a turn get none while others can, and none streams then.
func TestClassDoesNotFit(t *testing.T) {
	const kind = stage.KindDenoiser
	small := threads(fleettest.NewService(kind, "small"), 2)
	small.Edit(func(i *stage.Info) { i.Device, i.MemoryBudgetBytes = "fake:1", 5000 })
	r := over(fleettest.New(t, append(fleettest.Trio(), small)...))
	for _, s := range r.Services {
		s.Start()
	}
	r.Known(t)
	small.Looks(t, 2)
	spec := r.spec(t)
	spec.ImageCount = 2
	for class, f := range r.planned(t, spec).Turns["denoise"] {
		if f.WeightsBytes() != 4000 {
			t.Fatalf("%s is to stream: %+v", class, f)
		}
	}
	gate := r.script(kind).Hold(stagetest.OpDenoise, 2)
	first := r.start(fleettest.Soon(t), "first", spec)
	entered(t, gate)
	second := r.start(fleettest.Soon(t), "second", spec)
	second.events.Await(t, "the wait for the other", func(e pipeline.Event) bool {
		q, ok := e.(pipeline.Queued)
		return ok && q.Kind == kind
	})
	gate.Release()
	<-first.done
	if <-second.done; first.err != nil || second.err != nil || len(small.Works("denoise")) > 0 {
		t.Fatal(first.err, second.err, small.Works("denoise"))
	}
	if err := r.Service(kind).Stop(); err != nil {
		t.Fatal(err)
	}
	err := r.Pipeline.Fleet.Await(fleettest.Soon(t), func() bool {
		return len(r.Pipeline.Fleet.Classes(kind, []string{stagetest.Component(kind, stagetest.Model)})) == 1
	})
	if err != nil {
		t.Fatal(err)
	}
	if plan := r.planned(t, spec).Turns["denoise"]; len(plan) != 1 || plan["fake, 2 threads"].WeightsBytes() >= 4000 {
		t.Errorf("planned %+v for the small device alone", plan)
	}
	if j := r.good(t, spec); len(j.images()) != 2 {
		t.Error("the images were not made there")
	}
}

// TestNeededComponent: a job that needs a component which no service can load is refused before any work, others are made.
func TestNeededComponent(t *testing.T) {
	r := over(fleettest.New(t, fleettest.Trio()...))
	r.Service(stage.KindDecoder).Edit(func(i *stage.Info) {
		for n := range i.Components {
			if strings.HasSuffix(i.Components[n].Name, "/vae.encoder") {
				i.Components[n].Problem = "vae: encoder.conv_in is missing"
			}
		}
	})
	for _, s := range r.Services {
		s.Start()
	}
	r.good(t, r.spec(t))
	j := r.run(t, r.spec(t).photo())
	var e *stage.Error
	if !errors.As(j.err, &e) || e.Reason != stage.ModelInvalid || e.Message != "vae: encoder.conv_in is missing" || len(only[pipeline.Progress](j)) > 0 {
		t.Errorf("ended with %v", j.err)
	}
}

// TestClassLeaves: a job that was planned for the large device of a class that is gone streams its weights on the small one that is
// left, whether it waited for the large one or worked there; and takes the large one again once it is back.
func TestClassLeaves(t *testing.T) {
	const kind = stage.KindDenoiser
	for name, waiting := range map[string]bool{"at_work": false, "waiting": true} {
		t.Run(name, func(t *testing.T) {
			small := threads(fleettest.NewService(kind, "small"), 2)
			small.Edit(func(i *stage.Info) { i.Device, i.MemoryBudgetBytes = "fake:1", 5000 })
			r := over(fleettest.New(t, append(fleettest.Trio(), small)...))
			large := r.Service(kind)
			for _, s := range r.Services {
				s.Start()
			}
			r.Known(t)
			small.Looks(t, 2)
			spec := r.spec(t)
			quiet := r.good(t, spec)
			gate := large.Script.Hold(stagetest.OpDenoise, 7)
			first := r.start(fleettest.Soon(t), "first", spec)
			entered(t, gate)
			first.events.Await(t, "a step behind a checkpoint", func(e pipeline.Event) bool {
				p, ok := e.(pipeline.Progress)
				return ok && p.Kind == kind && p.Step > r.CheckpointEveryNSteps
			})
			jobs := []*job{first}
			if waiting {
				waits := r.start(fleettest.Soon(t), "waits", spec)
				waits.events.Await(t, "the wait for the large one", func(e pipeline.Event) bool {
					q, ok := e.(pipeline.Queued)
					return ok && q.Kind == kind
				})
				jobs = append(jobs, waits)
			}
			if err := large.Stop(); err != nil {
				t.Fatal(err)
			}
			for _, j := range jobs {
				if <-j.done; j.err != nil {
					t.Fatal(j.err)
				}
				same(t, j, quiet)
			}
			works := small.Works("denoise")
			if len(works) != len(jobs) || works[0].Resume == nil && works[len(works)-1].Resume == nil {
				t.Errorf("the small one worked %d times, or none went on from a checkpoint", len(works))
			}
			large.Start()
			if err := r.Pipeline.Fleet.Await(fleettest.Soon(t), func() bool {
				return len(r.Pipeline.Fleet.Classes(kind, []string{stagetest.Component(kind, stagetest.Model)})) == 2
			}); err != nil {
				t.Fatal(err)
			}
			same(t, r.good(t, spec), quiet)
			if again := small.Works("denoise"); len(again) != len(works) {
				t.Error("it worked once more when the large one was back")
			}
		})
	}
}

// TestClassLeavesEarly: what a job has yet to take is planned for those that are left as soon as others have left, so that it is
// prefetched as it will be loaded.
func TestClassLeavesEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const kind = stage.KindDenoiser
		small := threads(fleettest.NewService(kind, "small"), 2)
		small.Edit(func(i *stage.Info) { i.Device, i.MemoryBudgetBytes = "fake:1", 5000 })
		r := over(fleettest.New(t, append(fleettest.Trio(), small)...))
		for _, s := range r.Services {
			s.Start()
		}
		r.Known(t)
		small.Looks(t, 2)
		spec := r.spec(t)
		gate := r.script(stage.KindEncoder).Hold(stagetest.OpEncode, 1)
		j := r.start(fleettest.Soon(t), "job", spec)
		entered(t, gate)
		weights := func() map[string]int64 {
			out := map[string]int64{}
			for _, a := range r.Pipeline.Keeper.Snapshot().Announced {
				for class, f := range a.Need.Footprints {
					if a.Need.Kind == kind {
						out[class] = f.WeightsBytes()
					}
				}
			}
			return out
		}
		if got := weights(); len(got) != 2 || got["fake, 2 threads"] != 4000 {
			t.Errorf("announced are %v", got)
		}
		if err := r.Service(kind).Stop(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // of the bubble
		synctest.Wait()
		if got := weights(); len(got) != 1 || got["fake, 2 threads"] >= 4000 {
			t.Errorf("announced are %v for the small one alone", got)
		}
		gate.Release()
		if <-j.done; j.err != nil {
			t.Fatal(j.err)
		}
	})
}
