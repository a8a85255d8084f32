package api

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestStandby: an orchestrator that loses its stages to another one ends its requests, refuses further ones at once and holds nothing,
// and works again when it has them back.
func TestStandby(t *testing.T) {
	var theirs atomic.Bool
	trio := fleettest.Trio()
	for _, s := range trio {
		s.Server = []grpc.ServerOption{grpc.ChainUnaryInterceptor(
			func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
				if theirs.Load() {
					return nil, stagerpc.ToStatus(ctx, slog.New(slog.DiscardHandler), stagerpc.Owned(s.Kind, "0", false))
				}
				return next(ctx, req)
			})}
	}
	f := fleettest.New(t, trio...)
	for _, s := range f.Services {
		s.Start()
	}
	f.Known(t)
	r := over(t, f, func(s *Service) { s.Pipeline.Patience = time.Hour })
	if _, err := r.generate(t, small()); err != nil {
		t.Fatal(err)
	}
	gate := r.Service(stage.KindDenoiser).Script.Hold(stagetest.OpDenoise, 3)
	stream := r.start(fleettest.Soon(t), t, small())
	<-gate.Entered()
	theirs.Store(true)
	events, err := rest(stream)
	refused(t, err, codes.Unavailable, stage.StageOwned)
	if retry(err) <= 0 || len(events) == 0 {
		t.Errorf("behind %d events it is to be tried again in %v", len(events), retry(err))
	}
	gate.Release()
	events, err = r.generate(t, small())
	refused(t, err, codes.Unavailable, stage.StageOwned)
	if retry(err) <= 0 || len(events) > 0 {
		t.Errorf("behind %d events it is to be tried again in %v", len(events), retry(err))
	}
	if err := r.Fleet.Await(fleettest.Soon(t), func() bool { return len(r.Keeper.Snapshot().Stages) == 0 }); err != nil {
		t.Error(err)
	}
	if n := r.Used(); n != 0 {
		t.Errorf("%d bytes count", n)
	}
	watch, err := r.memory.WatchResidency(fleettest.Soon(t), &triptychv1alpha1.WatchResidencyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if news, err := watch.Recv(); err != nil || news.GetSnapshot() == nil || len(news.GetSnapshot().GetServices()) > 0 {
		t.Errorf("who watches is told %v, %v", news, err)
	}
	const why = "it works for another orchestrator"
	if err := r.Fleet.Await(fleettest.Soon(t), func() bool { return r.Fleet.Services()[0].Problem == why }); err != nil {
		t.Error(err)
	}
	list, err := r.models.ListModels(fleettest.Soon(t), &triptychv1alpha1.ListModelsRequest{})
	if err != nil || len(list.GetModels()) == 0 || list.GetServices()[0].GetProblem() != why {
		t.Errorf("the models are told as %v, %v", list, err)
	}
	theirs.Store(false)
	if err := r.Fleet.Await(fleettest.Soon(t), func() bool { return r.Fleet.Standing() == fleet.Owner }); err != nil {
		t.Fatal(err)
	}
	if _, err := r.generate(t, small()); err != nil {
		t.Errorf("when it has them back: %v", err)
	}
}
