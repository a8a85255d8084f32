package api

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// TestHeir: while the owner of the stages drains, a request at its heir waits and is told why. It is drawn when the heir has the
// stages, and ends at once when another one gets them. The heir is ready all the time.
func TestHeir(t *testing.T) {
	var owned, drains atomic.Bool
	owned.Store(true)
	trio := fleettest.Trio()
	for _, s := range trio {
		s.Server = []grpc.ServerOption{grpc.ChainUnaryInterceptor(
			func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
				if owned.Load() {
					return nil, stagerpc.ToStatus(ctx, slog.New(slog.DiscardHandler), stagerpc.Owned(s.Kind, "0", drains.Load()))
				}
				return next(ctx, req)
			})}
	}
	f := fleettest.New(t, trio...)
	for _, s := range f.Services {
		s.Start()
	}
	r := over(t, f, func(s *Service) { s.Pipeline.Patience = time.Hour })
	var told fleettest.Record[bool]
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		r.Fleet.Follow(ctx, fleet.Need{Patience: time.Hour}, told.Add)
	}()
	defer func() {
		cancel()
		<-followed
	}()
	is := func(want fleet.Standing) {
		t.Helper()
		if err := r.Fleet.Await(fleettest.Soon(t), func() bool { return r.Fleet.Standing() == want }); err != nil {
			t.Fatalf("it is %v, want %v: %v", r.Fleet.Standing(), want, err)
		}
	}
	ready := func(n int, want bool) {
		t.Helper()
		told.Await(t, "readiness", func(bool) bool { return len(told.All()) >= n })
		if got := told.All(); len(got) != n || got[n-1] != want {
			t.Errorf("its readiness was told as %v, want %d of which the last is %t", got, n, want)
		}
	}
	queued := func() (end func() ([]*response, error)) {
		t.Helper()
		stream := r.start(fleettest.Soon(t), t, small())
		for {
			e, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(e.GetQueued().GetReason(), "the orchestrator before this one finishes its work") {
				return func() ([]*response, error) { return rest(stream) }
			}
		}
	}

	is(fleet.Standby)
	ready(1, false)
	if r.Fleet.Yields() == nil || r.Fleet.StandsBy() == nil {
		t.Error("a standby tells of work, or takes requests")
	}
	drains.Store(true)
	is(fleet.Heir)
	ready(2, true)
	if r.Fleet.Yields() == nil || r.Fleet.StandsBy() != nil {
		t.Error("an heir tells of work, or takes no requests")
	}
	end := queued()
	owned.Store(false)
	events, err := end()
	if err != nil || events[len(events)-1].GetCompleted() == nil {
		t.Errorf("the request that waited: %v", err)
	}
	is(fleet.Owner)
	if r.Fleet.Yields() != nil {
		t.Error("the owner does not tell of work")
	}

	owned.Store(true)
	is(fleet.Heir)
	end = queued()
	ready(2, true)
	drains.Store(false)
	_, err = end()
	refused(t, err, codes.Unavailable, stage.StageOwned)
	if retry(err) <= 0 {
		t.Errorf("it is to be tried again in %v", retry(err))
	}
	ready(3, false)
}
