package fleet_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// problem is what the fleet tells of the first service of a kind.
func problem(r *fleettest.Rig, kind stage.Kind) string {
	all := r.Fleet.Services()
	return all[slices.IndexFunc(all, func(s fleet.ServiceState) bool { return s.Kind == kind })].Problem
}

// complete tells whether each kind has a service that gets work.
func complete(r *fleettest.Rig) bool {
	kinds := map[stage.Kind]bool{}
	for _, s := range r.Fleet.Services() {
		kinds[s.Kind] = kinds[s.Kind] || s.Problem == ""
	}
	return kinds[stage.KindEncoder] && kinds[stage.KindDenoiser] && kinds[stage.KindDecoder]
}

// TestProblems: why a service cannot be reached is logged once for each cause, and told to who asks and who waits.
func TestProblems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var why atomic.Value
		why.Store("nobody listens there")
		r := fleettest.With(t, fleet.Options{Diagnose: func(_ context.Context, address, _ string) string {
			if !strings.HasSuffix(address, "encoder") {
				return "" // nothing is found out about the others
			}
			return why.Load().(string)
		}}, fleettest.Trio()...)
		var ready fleettest.Record[bool]
		ctx, cancel := context.WithCancel(t.Context())
		followed := make(chan struct{})
		go func() {
			defer close(followed)
			r.Fleet.Follow(ctx, fleet.Need{}, ready.Add)
		}()
		defer func() {
			cancel()
			<-followed
		}()
		s := r.Service(stage.KindEncoder)
		check := func(want string) {
			t.Helper()
			time.Sleep(time.Minute) // of the bubble's: hundreds of looks
			synctest.Wait()
			if got := problem(r, stage.KindEncoder); got != want {
				t.Errorf("the problem is %q, want %q", got, want)
			}
			n := 0
			for _, line := range r.Logs.All() {
				if line == "stage gets no work: "+want {
					n++
				}
			}
			if want != "" && n != 1 {
				t.Errorf("%q was logged %d times: %q", want, n, r.Logs.All())
			}
		}
		check("nobody listens there")
		if got := problem(r, stage.KindDecoder); got != "it cannot be reached" {
			t.Errorf("of which nothing is known: %q", got)
		}
		if n := len(r.Logs.All()); n != 3 {
			t.Errorf("%d lines for three services: %q", n, r.Logs.All())
		}
		why.Store("the server speaks TLS")
		check("the server speaks TLS")
		_, err := r.Fleet.Model(t.Context(), stagetest.Model, time.Second)
		if !unreachable(err, stage.KindEncoder) || !strings.Contains(err.Error(), s.Address+": the server speaks TLS") {
			t.Errorf("who waits is told %v", err)
		}
		if complete(r) {
			t.Error("ready without a stage")
		}
		for _, s := range r.Services {
			s.Start()
		}
		check("")
		s.Edit(func(i *stage.Info) { i.Draining = true })
		gets := func(want string) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := problem(r, stage.KindEncoder); got != want {
				t.Errorf("the problem is %q, want %q", got, want)
			}
		}
		gets("it takes no new work")
		s.Edit(func(i *stage.Info) { i.Kind = stage.KindDecoder })
		gets("the peer is a stage of kind decoder, expected encoder")
		s.Edit(nil)
		answer := s.Hang()
		gets("it does not answer")
		answer()
		gets("")
		if got, want := ready.All(), []bool{false, true, false, true}; !slices.Equal(got, want) {
			t.Errorf("ready was told as %v, want %v", got, want)
		}
	})
}
