package stagerpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"google.golang.org/grpc"
)

// residentServer serves the residency side of a stage.
type residentServer struct {
	stagepb.UnimplementedStageServiceServer
	stage stage.Resident
	edge  edge
}

// edge is where a stage's errors leave the process.
type edge struct {
	kind stage.Kind
	log  *slog.Logger
}

func newEdge(kind stage.Kind, log *slog.Logger) edge {
	return edge{kind: kind, log: log.With("stage", kind.String())}
}

// status is ToStatus, with the stage in the metadata of what it has no words for.
func (e edge) status(ctx context.Context, err error) error {
	var known *stage.Error
	if err != nil && !errors.As(err, &known) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		err = fault(fmt.Sprintf("internal error of the %v", e.kind), err).With("stage", e.kind.String())
	}
	return ToStatus(ctx, e.log, err)
}

func registerResident(s grpc.ServiceRegistrar, r stage.Resident, e edge) {
	stagepb.RegisterStageServiceServer(s, &residentServer{stage: r, edge: e})
}

func (s *residentServer) GetStageInfo(ctx context.Context, req *stagepb.GetStageInfoRequest) (*stagepb.GetStageInfoResponse, error) {
	if offered := req.GetProtocols(); len(offered) > 0 && !slices.Contains(offered, Protocol) {
		return nil, s.edge.status(ctx, unsupported(fmt.Sprintf("no common stage protocol, offered were %v", offered[:min(len(offered), 16)])))
	}
	c := stage.CallerOf(Incoming(ctx))
	c.Want, c.Leaving = wantFromProto(req.GetWant()), req.GetLeaving()
	info, err := s.stage.Info(stage.WithCaller(ctx, c))
	if err != nil {
		return nil, s.edge.status(ctx, err)
	}
	return infoToProto(info), nil
}

func (s *residentServer) PlanComponent(ctx context.Context, req *stagepb.PlanComponentRequest) (*stagepb.PlanComponentResponse, error) {
	footprint, err := s.stage.Plan(ctx, stage.PlanRequest{
		Model: req.GetModel(), Batch: int(req.GetBatch()),
		LatentHeight: int(req.GetLatentHeight()), LatentWidth: int(req.GetLatentWidth()), LimitBytes: req.GetLimitBytes(),
	})
	if err != nil {
		return nil, s.edge.status(ctx, err)
	}
	return &stagepb.PlanComponentResponse{
		WeightsBytes: footprint.WeightsBytes, ScratchBytes: footprint.ScratchBytes, WholeBytes: footprint.WholeBytes, SpillBytes: footprint.SpillBytes,
	}, nil
}

func (s *residentServer) LoadComponent(req *stagepb.LoadComponentRequest, stream grpc.ServerStreamingServer[stagepb.LoadComponentResponse]) error {
	ctx, cancel := context.WithCancel(Incoming(stream.Context()))
	defer cancel()
	out := noted(serverOutbox(stream), cancel)
	var edition stage.Edition
	err := s.stage.Load(ctx, stage.LoadRequest{
		Model: req.GetModel(), LimitBytes: req.GetLimitBytes(), Generation: req.GetRuntimeGeneration(), Edition: func(e stage.Edition) { edition = e },
	}, func(loaded, total int64) {
		out.send(&stagepb.LoadComponentResponse{LoadedBytes: loaded, TotalBytes: total, Stamp: clip(edition.Stamp), Identity: clip(edition.Identity)})
	})
	return s.edge.status(ctx, out.instead(err))
}

func (s *residentServer) EvictComponent(ctx context.Context, req *stagepb.EvictComponentRequest) (*stagepb.EvictComponentResponse, error) {
	evicted, err := s.stage.Evict(Incoming(ctx), stage.EvictRequest{Model: req.GetModel(), Keep: req.GetKeep(), Generation: req.GetRuntimeGeneration()})
	if err != nil {
		return nil, s.edge.status(ctx, err)
	}
	return &stagepb.EvictComponentResponse{FreedBytes: evicted.FreedBytes, WarmBytes: evicted.WarmBytes}, nil
}

func (s *residentServer) SettleComponent(ctx context.Context, req *stagepb.SettleComponentRequest) (*stagepb.SettleComponentResponse, error) {
	if err := s.stage.Settle(Incoming(ctx), req.GetModel()); err != nil {
		return nil, s.edge.status(ctx, err)
	}
	return &stagepb.SettleComponentResponse{}, nil
}

func (s *residentServer) Drain(ctx context.Context, _ *stagepb.DrainRequest) (*stagepb.DrainResponse, error) {
	if err := s.stage.Drain(ctx); err != nil {
		return nil, s.edge.status(ctx, err)
	}
	return &stagepb.DrainResponse{}, nil
}

func (s *residentServer) Undrain(ctx context.Context, _ *stagepb.UndrainRequest) (*stagepb.UndrainResponse, error) {
	if err := s.stage.Undrain(ctx); err != nil {
		return nil, s.edge.status(ctx, err)
	}
	return &stagepb.UndrainResponse{}, nil
}

// A notebook sends what a stage reports through callbacks that return nothing: the first error is
// kept, stops the work and silences the rest.
type notebook[M any] struct {
	out  outbox[M]
	stop context.CancelFunc
	err  error
}

func noted[M any](out outbox[M], stop context.CancelFunc) *notebook[M] {
	return &notebook[M]{out: out, stop: stop}
}

func (n *notebook[M]) send(m *M) {
	if n.err == nil {
		n.fail(n.out(m))
	}
}

func (n *notebook[M]) fail(err error) {
	if n.err == nil && err != nil {
		n.err = err
		n.stop()
	}
}

// instead is the error of the call: what stopped the work, rather than that it was stopped.
func (n *notebook[M]) instead(err error) error {
	if n.err != nil {
		return n.err
	}
	return err
}
