package fleet_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// quiet fails if the keeper has recorded anything else of the denoiser's memory since n events.
func quiet(t *testing.T, r *fleettest.Rig, n int) {
	t.Helper()
	for _, e := range r.Events.All()[n:] {
		if e.Action != residency.Wait && e.Action != residency.Withdraw {
			t.Errorf("decided: %v %s", e.Action, e.Reason)
		}
	}
}

// need is for the denoiser, by any service, without scratch.
func need(r *fleettest.Rig) residency.Need {
	n := residency.Need{Kind: stage.KindDenoiser, Components: tiny(stage.KindDenoiser, 8).Components, Footprints: map[string]stage.Footprint{}}
	for _, class := range r.Fleet.Classes(n.Kind, n.Components) {
		n.Footprints[class] = stage.Footprint{Weights: []stage.Weights{{Component: n.Components[0], Bytes: 4000, WholeBytes: 4000}}}
	}
	return n
}

// TestNoAnswer: a service that does not answer while its connection stands keeps its bytes for as long as it
// takes, and gets no work; when it answers it is what it was.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fleettest.Up(t)
		s := r.Service(stage.KindDenoiser)
		load(t, r)
		synctest.Wait() // until all of it is told
		before, n := r.Used(), len(r.Events.All())
		if before == 0 {
			t.Fatal("nothing counts")
		}
		silent := need(r)
		answer := s.Hang()
		time.Sleep(20 * time.Second) // of the bubble's: some looks time out
		synctest.Wait()
		if now := r.Used(); now != before {
			t.Errorf("%d bytes count, want %d", now, before)
		}
		if all := r.Logs.All(); !strings.HasPrefix(all[len(all)-1], "stage does not answer") {
			t.Errorf("the fleet said %q", all)
		}
		guarded, done := r.Fleet.Guard(t.Context(), stage.KindDenoiser, tiny(stage.KindDenoiser, 8).Components, time.Second)
		defer done()
		_, err := r.Keeper.Acquire(guarded, residency.AcquireRequest{Need: silent})
		if !unreachable(err, stage.KindDenoiser) {
			t.Errorf("work for a silent service: %v", err)
		}
		r.Events.Await(t, "the reason", says(residency.Wait, "does not answer"))
		quiet(t, r, n)
		answer()
		load(t, r)
		for _, e := range r.Events.All()[n:] {
			if e.Action == residency.Load || e.Action == residency.Lost {
				t.Errorf("what it held was not there: %v %s", e.Action, e.Reason)
			}
		}
	})
}

// TestNoAnswerThenGone: once the connection of a silent service is cut, its bytes are free; a service that
// was never there is not kept.
func TestNoAnswerThenGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fleettest.Up(t)
		s := r.Service(stage.KindDenoiser)
		load(t, r)
		defer s.Hang()()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if r.Used() == 0 {
			t.Error("nothing counts of a service that does not answer")
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		r.Events.Await(t, "the loss", says(residency.Lost, "the service is gone"))
		if now := r.Used(); now != 0 {
			t.Errorf("%d bytes count of a service that is gone", now)
		}
	})
}

// TestNoAnswerNewRuntime: the runtime that ended while its service was silent has taken its bytes along.
func TestNoAnswerNewRuntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fleettest.Up(t)
		s := r.Service(stage.KindDenoiser)
		load(t, r)
		answer := s.Hang()
		time.Sleep(10 * time.Second)
		s.Edit(func(i *stage.Info) { i.Generation = 2 })
		answer()
		r.Events.Await(t, "the loss", says(residency.Lost, "the runtime process ended"))
		load(t, r)
	})
}

// TestReportHolds: a service that failed a call keeps its bytes and gets no work until it has been asked.
func TestReportHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fleettest.Up(t)
		s := r.Service(stage.KindDenoiser)
		load(t, r)
		synctest.Wait() // until all of it is told
		before, n := r.Used(), len(r.Events.All())
		reported := need(r)
		answer := s.Hang()
		r.Fleet.Report(s.ID())
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if now := r.Used(); now != before {
			t.Errorf("%d bytes count after a report, want %d", now, before)
		}
		if _, ok := r.Keeper.TryAcquire(t.Context(), residency.AcquireRequest{Need: reported}); ok {
			t.Error("a reported service was given work before it answered")
		}
		quiet(t, r, n)
		s.Edit(func(i *stage.Info) { i.Resident = nil })
		answer()
		r.Events.Await(t, "the loss", says(residency.Lost, "its stage does not hold it"))
	})
}

// TestUnknownWeights: what a stage holds and nobody here has in view, as after a load whose answer was lost, is found by a
// look, and then counts.
func TestUnknownWeights(t *testing.T) {
	r := fleettest.Up(t)
	d := r.Fleet.Stage(r.Service(stage.KindDenoiser).ID())
	if err := d.Load(fleettest.Soon(t), stage.LoadRequest{Component: tiny(stage.KindDenoiser, 8).Components[0]}, nil); err != nil {
		t.Fatal(err)
	}
	r.Events.Await(t, "the find", says(residency.Reserve, "as its stage says"))
	info, err := d.Info(fleettest.Soon(t))
	if err != nil || info.UsedBytes == 0 || r.Used() != info.UsedBytes {
		t.Errorf("%d bytes count, the stage holds %d: %v", r.Used(), info.UsedBytes, err)
	}
}

// TestPlanLeavesMute: a question that a service does not answer, of which nothing else is heard either, goes to another one.
func TestPlanLeavesMute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const kind = stage.KindDenoiser
		r := fleettest.New(t, append(fleettest.Trio(), fleettest.NewService(kind, "another"))...)
		asked := make(chan *fleettest.Service, 2)
		for _, s := range r.Services {
			s.Before = func(ctx context.Context, _ string) error {
				if asked <- s; len(asked) == 1 {
					s.Hang()
					<-ctx.Done()
				}
				return ctx.Err()
			}
			s.Start()
		}
		r.Known(t)
		begin := time.Now()
		if _, err := r.Fleet.Plan(t.Context(), kind, tiny(kind, 8), nil, nil); err != nil {
			t.Fatal(err)
		}
		first, second := <-asked, <-asked
		if took := time.Since(begin); took > 10*time.Second || first == second {
			t.Errorf("it took %v, %s was asked and then %s", took, first.Address, second.Address)
		}
	})
}
