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

// Register serves a stage of a kind as StageService and WorkService. log gets the causes of errors that callers do not see
// (see ToStatus).
func Register(s grpc.ServiceRegistrar, kind stage.Kind, served stage.Stage, log *slog.Logger) {
	e := edge{kind: kind, log: log.With("stage", kind.String())}
	stagepb.RegisterStageServiceServer(s, &residentServer{stage: served, edge: e})
	stagepb.RegisterWorkServiceServer(s, &workServer{stage: served, edge: e})
}

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

// status is ToStatus, with the stage in the metadata of what it has no words for.
func (e edge) status(ctx context.Context, err error) error {
	var known *stage.Error
	if err != nil && !errors.As(err, &known) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		err = fault(fmt.Sprintf("internal error of the %v", e.kind), err).With("stage", e.kind.String())
	}
	return ToStatus(ctx, e.log, err)
}

func (s *residentServer) GetStageInfo(ctx context.Context, req *stagepb.GetStageInfoRequest) (*stagepb.GetStageInfoResponse, error) {
	if offered := req.GetProtocols(); len(offered) > 0 && !slices.Contains(offered, Protocol) {
		return nil, s.edge.status(ctx, unsupported(fmt.Sprintf("the %v speaks stage protocol %d, offered were %v", s.edge.kind, Protocol, some(offered, 16))))
	}
	c := stage.CallerOf(Incoming(ctx))
	c.Want, c.Leaving = wantFromProto(req.GetWant()), req.GetLeaving()
	info, err := s.stage.Info(stage.WithCaller(ctx, c))
	return infoToProto(info), s.edge.status(ctx, err)
}

func (s *residentServer) PlanTurn(ctx context.Context, req *stagepb.PlanTurnRequest) (*stagepb.PlanTurnResponse, error) {
	options, err := requested(req.GetComponents(), req.GetOptions())
	if err != nil {
		return nil, s.edge.status(ctx, err)
	}
	footprint, err := s.stage.Plan(ctx, stage.PlanRequest{
		Turn: req.GetTurn(), Components: req.GetComponents(), Options: options, LimitBytes: req.GetLimitBytes(),
	})
	return &stagepb.PlanTurnResponse{
		ScratchBytes: footprint.ScratchBytes, SpillBytes: footprint.SpillBytes,
		Weights: each(footprint.Weights, func(w stage.Weights) *stagepb.ComponentWeights {
			return &stagepb.ComponentWeights{Component: clip(w.Component), WeightsBytes: w.Bytes, WholeBytes: w.WholeBytes}
		}),
	}, s.edge.status(ctx, err)
}

func (s *residentServer) LoadComponent(req *stagepb.LoadComponentRequest, stream grpc.ServerStreamingServer[stagepb.LoadComponentResponse]) error {
	ctx, cancel := context.WithCancel(Incoming(stream.Context()))
	defer cancel()
	out := notebook[stagepb.LoadComponentResponse]{out: serverOutbox(stream), stop: cancel}
	var edition stage.Edition
	err := s.stage.Load(ctx, stage.LoadRequest{
		Component: req.GetComponent(), LimitBytes: req.GetLimitBytes(), Generation: req.GetRuntimeGeneration(), Edition: func(e stage.Edition) { edition = e },
	}, func(loaded, total int64) {
		out.send(&stagepb.LoadComponentResponse{LoadedBytes: loaded, TotalBytes: total, Stamp: clip(edition.Stamp), Identity: clip(edition.Identity)})
	})
	return s.edge.status(ctx, out.instead(err))
}

func (s *residentServer) EvictComponent(ctx context.Context, req *stagepb.EvictComponentRequest) (*stagepb.EvictComponentResponse, error) {
	evicted, err := s.stage.Evict(Incoming(ctx), stage.EvictRequest{Component: req.GetComponent(), Keep: req.GetKeep(), Generation: req.GetRuntimeGeneration()})
	return &stagepb.EvictComponentResponse{FreedBytes: evicted.FreedBytes, WarmBytes: evicted.WarmBytes}, s.edge.status(ctx, err)
}

func (s *residentServer) SettleComponent(ctx context.Context, req *stagepb.SettleComponentRequest) (*stagepb.SettleComponentResponse, error) {
	return &stagepb.SettleComponentResponse{}, s.edge.status(ctx, s.stage.Settle(Incoming(ctx), req.GetComponent()))
}

func (s *residentServer) Drain(ctx context.Context, _ *stagepb.DrainRequest) (*stagepb.DrainResponse, error) {
	return &stagepb.DrainResponse{}, s.edge.status(ctx, s.stage.Drain(ctx))
}

func (s *residentServer) Undrain(ctx context.Context, _ *stagepb.UndrainRequest) (*stagepb.UndrainResponse, error) {
	return &stagepb.UndrainResponse{}, s.edge.status(ctx, s.stage.Undrain(ctx))
}

// A notebook sends what a stage reports through callbacks that return nothing: the first error is
// kept, stops the work and silences the rest.
type notebook[M any] struct {
	out  outbox[M]
	stop context.CancelFunc
	err  error
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
