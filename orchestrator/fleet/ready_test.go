package fleet_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/stage"
)

// TestReady: an orchestrator is ready with the replicas that it needs, which may be missing again for a while.
func TestReady(t *testing.T) {
	const patience = 10 * time.Second
	for name, c := range map[string]struct {
		least  map[stage.Kind]int
		before []bool // that is told before the denoiser has been there
		after  []bool // and when it was missing for longer than patience
	}{
		"one of each":   {nil, []bool{false}, []bool{false, true, false, true}},
		"no denoiser":   {map[stage.Kind]int{stage.KindDenoiser: 0}, []bool{false, true}, []bool{false, true}},
		"two denoisers": {map[stage.Kind]int{stage.KindDenoiser: 2}, []bool{false}, []bool{false}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := fleettest.New(t, fleettest.Trio()...)
				var told fleettest.Record[bool]
				ctx, cancel := context.WithCancel(t.Context())
				followed := make(chan struct{})
				go func() {
					defer close(followed)
					r.Fleet.Follow(ctx, fleet.Need{Replicas: c.least, Patience: patience}, told.Add)
				}()
				defer func() {
					cancel()
					<-followed
				}()
				is := func(when string, want []bool) {
					t.Helper()
					synctest.Wait()
					if got := told.All(); !slices.Equal(got, want) {
						t.Errorf("%s it was told as %v, want %v", when, got, want)
					}
				}
				s := r.Service(stage.KindDenoiser)
				for _, other := range r.Services {
					if other != s {
						other.Start()
					}
				}
				time.Sleep(2 * patience)
				is("without a denoiser", c.before)
				s.Start()
				time.Sleep(2 * time.Second)
				up := told.All()
				if err := s.Stop(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(patience - 2*time.Second)
				is("while it is missing for a while", up)
				s.Start()
				time.Sleep(2 * time.Second)
				is("when it is there again", up)
				if err := s.Stop(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(patience + 2*time.Second)
				s.Start()
				time.Sleep(2 * time.Second)
				is("in the end", c.after)
			})
		})
	}
}
