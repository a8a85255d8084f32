package stagerpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"google.golang.org/grpc"
)

// resident is the residency side of a stage somewhere else.
type resident struct {
	rpc  stagepb.StageServiceClient
	kind stage.Kind
}

func newResident(conn grpc.ClientConnInterface, kind stage.Kind) resident {
	return resident{rpc: stagepb.NewStageServiceClient(conn), kind: kind}
}

// Info also negotiates: StageProtocolUnsupported when the peer speaks another protocol or is
// another kind of stage.
func (r resident) Info(ctx context.Context) (stage.Info, error) {
	res, err := r.rpc.GetStageInfo(ctx, &stagepb.GetStageInfoRequest{Protocols: []uint32{Protocol}, Want: wantToProto(stage.CallerOf(ctx).Want), Leaving: stage.CallerOf(ctx).Leaving})
	if err != nil {
		return stage.Info{}, FromStatus(err, r.kind)
	}
	info := infoFromProto(res)
	if res.GetProtocol() != Protocol {
		return stage.Info{}, unsupported(fmt.Sprintf("the %v chose stage protocol %d", r.kind, res.GetProtocol())).With("stage", r.kind.String())
	}
	if info.Kind != r.kind {
		return stage.Info{}, unsupported(fmt.Sprintf("the peer is a stage of kind %v, expected %v", info.Kind, r.kind)).With("stage", r.kind.String())
	}
	return info, nil
}

func (r resident) Plan(ctx context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	m := &stagepb.PlanComponentRequest{
		Model: req.Model, Batch: saturate(req.Batch),
		LatentHeight: saturate(req.LatentHeight), LatentWidth: saturate(req.LatentWidth), LimitBytes: req.LimitBytes,
	}
	if err := sendable(m); err != nil {
		return stage.Footprint{}, err
	}
	res, err := r.rpc.PlanComponent(ctx, m)
	if err != nil {
		return stage.Footprint{}, FromStatus(err, r.kind)
	}
	return stage.Footprint{WeightsBytes: res.GetWeightsBytes(), ScratchBytes: res.GetScratchBytes(), WholeBytes: res.GetWholeBytes(), SpillBytes: res.GetSpillBytes()}, nil
}

func (r resident) Load(ctx context.Context, req stage.LoadRequest, progress func(loadedBytes, totalBytes int64)) error {
	m := &stagepb.LoadComponentRequest{Model: req.Model, LimitBytes: req.LimitBytes, RuntimeGeneration: req.Generation}
	if err := sendable(m); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.rpc.LoadComponent(ctx, m)
	if err != nil {
		return FromStatus(err, r.kind)
	}
	in := clientInbox(stream, r.kind)
	for {
		p, err := in.recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if e := (stage.Edition{Stamp: p.GetStamp(), Identity: p.GetIdentity()}); req.Edition != nil && e != (stage.Edition{}) {
			req.Edition(e)
		}
		if progress != nil {
			progress(p.GetLoadedBytes(), p.GetTotalBytes())
		}
	}
}

func (r resident) Evict(ctx context.Context, req stage.EvictRequest) (stage.Evicted, error) {
	m := &stagepb.EvictComponentRequest{Model: req.Model, Keep: req.Keep, RuntimeGeneration: req.Generation}
	if err := sendable(m); err != nil {
		return stage.Evicted{}, err
	}
	res, err := r.rpc.EvictComponent(ctx, m)
	if err != nil {
		return stage.Evicted{}, FromStatus(err, r.kind)
	}
	return stage.Evicted{FreedBytes: res.GetFreedBytes(), WarmBytes: res.GetWarmBytes()}, nil
}

func (r resident) Settle(ctx context.Context, model string) error {
	m := &stagepb.SettleComponentRequest{Model: model}
	if err := sendable(m); err != nil {
		return err
	}
	_, err := r.rpc.SettleComponent(ctx, m)
	return FromStatus(err, r.kind)
}

func (r resident) Undrain(ctx context.Context) error {
	_, err := r.rpc.Undrain(ctx, &stagepb.UndrainRequest{})
	return FromStatus(err, r.kind)
}

func (r resident) Drain(ctx context.Context) error {
	_, err := r.rpc.Drain(ctx, &stagepb.DrainRequest{})
	return FromStatus(err, r.kind)
}
