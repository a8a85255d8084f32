package fleet_test

import (
	"context"
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/stage"
)

// TestLeave: a fleet that goes away says so to every service that it knows.
func TestLeave(t *testing.T) {
	r := fleettest.New(t, fleettest.Trio()...)
	var left fleettest.Record[stage.Caller]
	for _, s := range r.Services {
		s.Looked = func(ctx context.Context) {
			if c := stage.CallerOf(ctx); c.Leaving {
				left.Add(c)
			}
		}
		s.Start()
	}
	r.Known(t)
	r.End()
	r.Fleet.Leave()
	if all := left.All(); len(all) != len(r.Services) || all[0].Orchestrator == "" || all[0] != all[1] || all[0] != all[2] {
		t.Errorf("who leaves is %+v", all)
	}
}

// TestHeal: services that drain take work again where nobody else may make them drain.
func TestHeal(t *testing.T) {
	r := fleettest.With(t, fleet.Options{Undrain: true}, fleettest.Trio()...)
	for _, s := range r.Services {
		s.Start()
	}
	load(t, r)
	s := r.Service(stage.KindDenoiser)
	if err := s.Stage().Drain(fleettest.Soon(t)); err != nil {
		t.Fatal(err)
	}
	r.Logs.Await(t, "the healing", func(line string) bool { return line == "stage was drained, and takes work again" })
	if info, err := s.Stage().Info(fleettest.Soon(t)); err != nil || info.Draining {
		t.Errorf("it is %+v, %v", info, err)
	}
	load(t, r)
}
