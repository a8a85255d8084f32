package stagerpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// New is the stage of a kind at the other end of conn.
func New(conn grpc.ClientConnInterface, kind stage.Kind) stage.Stage {
	conn = As(conn, "", "")
	return &client{rpc: stagepb.NewStageServiceClient(conn), work: stagepb.NewWorkServiceClient(conn), kind: kind}
}

// client is a stage somewhere else.
type client struct {
	rpc  stagepb.StageServiceClient
	work stagepb.WorkServiceClient
	kind stage.Kind
}

// call sends a request, and tells what it cannot send and what the peer says in the errors of a stage of a kind.
func call[Q proto.Message, R any](ctx context.Context, kind stage.Kind, method func(context.Context, Q, ...grpc.CallOption) (R, error), req Q) (res R, err error) {
	if err := sendable(req); err != nil {
		return res, err
	}
	res, err = method(ctx, req)
	return res, FromStatus(err, kind)
}

// Info also negotiates: StageProtocolUnsupported when the peer speaks another protocol or is
// another kind of stage.
func (c *client) Info(ctx context.Context) (stage.Info, error) {
	caller := stage.CallerOf(ctx)
	res, err := call(ctx, c.kind, c.rpc.GetStageInfo, &stagepb.GetStageInfoRequest{Protocols: []uint32{Protocol}, Want: wantToProto(caller.Want), Leaving: caller.Leaving})
	if err != nil {
		return stage.Info{}, c.spoken(err)
	}
	if res.GetProtocol() != Protocol {
		return stage.Info{}, c.speaks(fmt.Sprint(res.GetProtocol()))
	}
	info := infoFromProto(res)
	if info.Kind != c.kind {
		return stage.Info{}, unsupported(fmt.Sprintf("the peer is a stage of kind %v, expected %v", info.Kind, c.kind)).With("stage", c.kind.String())
	}
	return info, nil
}

// spoken adds our protocol to the error of a peer that told of its own alone.
func (c *client) spoken(err error) error {
	var e *stage.Error
	if errors.As(err, &e) && e.Reason == stage.StageProtocolUnsupported && e.Cause == nil && e.Metadata["supported"] != "" {
		return c.speaks(e.Metadata["supported"])
	}
	return err
}

// speaks is a peer of another protocol.
func (c *client) speaks(protocol string) error {
	return unsupported(fmt.Sprintf("the %v speaks stage protocol %s, expected %d", c.kind, clip(protocol), Protocol)).With("stage", c.kind.String())
}

func (c *client) Plan(ctx context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	res, err := call(ctx, c.kind, c.rpc.PlanTurn, &stagepb.PlanTurnRequest{
		Turn: req.Turn, Components: req.Components, Options: optionsToProto(req.Options), LimitBytes: req.LimitBytes,
	})
	return stage.Footprint{
		ScratchBytes: res.GetScratchBytes(), SpillBytes: res.GetSpillBytes(),
		Weights: each(some(res.GetWeights(), maxMembers), func(w *stagepb.ComponentWeights) stage.Weights {
			return stage.Weights{Component: w.GetComponent(), Bytes: w.GetWeightsBytes(), WholeBytes: w.GetWholeBytes()}
		}),
	}, err
}

func (c *client) Load(ctx context.Context, req stage.LoadRequest, progress func(loadedBytes, totalBytes int64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := call(ctx, c.kind, c.rpc.LoadComponent, &stagepb.LoadComponentRequest{
		Component: req.Component, LimitBytes: req.LimitBytes, RuntimeGeneration: req.Generation,
	})
	if err != nil {
		return err
	}
	in := clientInbox(stream, c.kind)
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

func (c *client) Evict(ctx context.Context, req stage.EvictRequest) (stage.Evicted, error) {
	res, err := call(ctx, c.kind, c.rpc.EvictComponent, &stagepb.EvictComponentRequest{Component: req.Component, Keep: req.Keep, RuntimeGeneration: req.Generation})
	return stage.Evicted{FreedBytes: res.GetFreedBytes(), WarmBytes: res.GetWarmBytes()}, err
}

func (c *client) Settle(ctx context.Context, component string) error {
	_, err := call(ctx, c.kind, c.rpc.SettleComponent, &stagepb.SettleComponentRequest{Component: component})
	return err
}

func (c *client) Undrain(ctx context.Context) error {
	_, err := call(ctx, c.kind, c.rpc.Undrain, &stagepb.UndrainRequest{})
	return err
}

func (c *client) Drain(ctx context.Context) error {
	_, err := call(ctx, c.kind, c.rpc.Drain, &stagepb.DrainRequest{})
	return err
}
