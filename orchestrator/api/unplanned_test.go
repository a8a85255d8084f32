package api

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/orchestrator/scale"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestUnplanned: a request that takes long to be understood counts by what it asks for, and one that is refused at once never does.
func TestUnplanned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes atomic.Int32
		u := newUnplanned(func() { changes.Add(1) })
		refused := u.begin("refused", "nonsense")
		late := u.begin("late", "sdxl")
		late2 := u.begin("outlined", "sd15")
		needs := []residency.Need{{Kind: stage.KindDenoiser}}
		u.outline("outlined", "sd15", needs)
		outlined := scale.Unplanned{Job: "outlined", Asked: "sd15", Model: "sd15", Needs: needs}
		expect := func(what string, want ...scale.Unplanned) {
			t.Helper()
			if diff := cmp.Diff(want, u.list()); diff != "" {
				t.Errorf("%s: %s", what, diff)
			}
		}
		time.Sleep(20 * time.Millisecond)
		expect("at once", outlined)
		refused()
		time.Sleep(unheardAfter)
		synctest.Wait()
		expect("a little later", scale.Unplanned{Job: "late", Asked: "sdxl"}, outlined)
		before := changes.Load()
		late()
		late()
		late2()
		expect("at the end")
		if n := changes.Load() - before; n != 2 {
			t.Errorf("%d changes are told when two requests end", n)
		}
		time.Sleep(time.Hour)
		expect("long after")
	})
}

// TestUnplannedUntilAnnounced: a request counts with its turns while a stage has yet to say what it takes, and no more once the
// keeper knows it.
func TestUnplannedUntilAnnounced(t *testing.T) {
	fleet := fleettest.New(t, fleettest.Trio()...)
	asked, answer := make(chan struct{}), make(chan struct{})
	fleet.Service(stage.KindDenoiser).Before = func(_ context.Context, call string) error {
		if call == "plan" {
			close(asked)
			<-answer
		}
		return nil
	}
	for _, s := range fleet.Services {
		s.Start()
	}
	r := over(t, fleet, nil)
	gate := fleet.Service(stage.KindEncoder).Script.Hold(stagetest.OpEncode, 1)
	stream := r.start(fleettest.Soon(t), t, small())
	<-asked
	got := r.service.Unplanned()
	if len(got) != 1 || got[0].Model != stagetest.Model || got[0].Job == "" || len(got[0].Needs) != 3 || got[0].Needs[1].Work.Evaluations != 6 {
		t.Errorf("while it is planned: %+v", got)
	}
	close(answer)
	<-gate.Entered()
	if got := r.service.Unplanned(); len(got) != 0 {
		t.Errorf("while it encodes: %+v", got)
	}
	if a := fleet.Keeper.Snapshot().Announced; len(a) != 2 || a[0].Times != 1 || a[0].Job != got[0].Job {
		t.Errorf("the keeper knows of %+v", a)
	}
	gate.Release()
	if _, err := rest(stream); err != nil {
		t.Error(err)
	}
	if got := r.service.Unplanned(); len(got) != 0 {
		t.Errorf("at the end: %+v", got)
	}
}
