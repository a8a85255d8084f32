package fleet_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// load makes the denoiser's model resident through the keeper.
func load(t *testing.T, r *fleettest.Rig) residency.StageID {
	t.Helper()
	need := residency.Need{Kind: stage.KindDenoiser, Components: tiny(stage.KindDenoiser, 8).Components}
	var err error
	if need.Footprints, err = r.Fleet.Plan(fleettest.Soon(t), stage.KindDenoiser, tiny(stage.KindDenoiser, 8), nil, nil); err != nil {
		t.Fatal(err)
	}
	lease, err := r.Keeper.Acquire(fleettest.Soon(t), residency.AcquireRequest{Need: need})
	if err != nil {
		t.Fatal(err)
	}
	lease.Release()
	return lease.Stage
}

// says is an event of an action whose reason has a text.
func says(action residency.Action, text string) func(residency.Event) bool {
	return func(e residency.Event) bool {
		return e.Action == action && e.Kind == stage.KindDenoiser && strings.Contains(e.Reason, text)
	}
}

// TestKeeperHears: what happens to a service, the keeper hears.
func TestKeeperHears(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(*testing.T, *fleettest.Rig, *fleettest.Service)
		action  residency.Action
		text    string
	}{
		"the service ends": {func(t *testing.T, _ *fleettest.Rig, s *fleettest.Service) {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		}, residency.Lost, "the service is gone"},
		"the runtime ends": {func(_ *testing.T, _ *fleettest.Rig, s *fleettest.Service) {
			s.Edit(func(i *stage.Info) { i.Generation = 2 })
		}, residency.Lost, "the runtime process ended"},
		"the service starts again": {func(_ *testing.T, _ *fleettest.Rig, s *fleettest.Service) {
			s.Edit(func(i *stage.Info) { i.Generation, i.Resident = 0, nil })
		}, residency.Lost, "another program answers"},
		"a call fails": {func(_ *testing.T, r *fleettest.Rig, s *fleettest.Service) {
			s.Edit(func(i *stage.Info) { i.Resident = nil })
			r.Fleet.Report(s.ID())
		}, residency.Lost, "its stage does not hold it"},
		"it answers as another kind": {func(_ *testing.T, _ *fleettest.Rig, s *fleettest.Service) {
			s.Edit(func(i *stage.Info) { i.Kind = stage.KindDecoder })
		}, residency.Lost, "the service is gone"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := fleettest.Up(t)
			load(t, r)
			c.happens(t, r, r.Service(stage.KindDenoiser))
			r.Events.Await(t, name, says(c.action, c.text))
			if used := r.Used(); used != 0 {
				t.Errorf("%d bytes count afterwards", used)
			}
		})
	}
}

// TestServiceReturns: a service that ends and comes back with nothing is found and used again.
func TestServiceReturns(t *testing.T) {
	r := fleettest.Up(t)
	s := r.Service(stage.KindDenoiser)
	load(t, r)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	r.Events.Await(t, "the loss", says(residency.Lost, "the service is gone"))
	s.Forget()
	s.Start()
	load(t, r)
}

// TestDrainingIsNotAsked: a stage that drains gets no work, and its replica does.
func TestDrainingIsNotAsked(t *testing.T) {
	drains := fleettest.NewService(stage.KindDenoiser, "a") // the first by name is taken first
	other := fleettest.NewService(stage.KindDenoiser, "b")
	r := fleettest.New(t, drains, other)
	for _, s := range r.Services {
		s.Start()
	}
	if got := load(t, r); got != drains.ID() && got != other.ID() {
		t.Fatal(got)
	}
	drains.Edit(func(i *stage.Info) { i.Draining = true })
	drains.Looks(t, 2) // the first has then been digested
	if got := load(t, r); got != other.ID() {
		t.Errorf("%s was given work", got)
	}
}

func TestNewRefusesTwins(t *testing.T) {
	_, err := fleet.New(fleet.Options{Addresses: map[stage.Kind][]string{
		stage.KindEncoder: {"passthrough:///x"}, stage.KindDecoder: {"passthrough:///x"},
	}, Dial: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}})
	if err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("one address for two services: %v", err)
	}
}

// TestStress: services come and go while everybody waits for them; nobody waits for ever.
func TestStress(t *testing.T) {
	r := fleettest.Up(t)
	s := r.Service(stage.KindDenoiser)
	const planners = 8
	done := make(chan error, planners)
	for i := range planners {
		go func() {
			for n := range 20 {
				if _, err := r.Fleet.Plan(fleettest.Soon(t), stage.KindDenoiser, tiny(stage.KindDenoiser, int64(2+2*((i+n)%16))), nil, nil); err != nil {
					done <- err
					return
				}
				r.Fleet.Report(s.ID())
				guarded, end := r.Fleet.Guard(t.Context(), stage.KindDenoiser, tiny(stage.KindDenoiser, 8).Components, time.Hour)
				if guarded.Err() != nil {
					t.Error(guarded.Err())
				}
				end()
			}
			done <- nil
		}()
	}
	for range planners {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
