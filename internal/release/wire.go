package release

import (
	"context"

	"google.golang.org/grpc/stats"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
)

// calls are those of a stage that leave memory behind.
var calls = map[string]call{
	stagepb.TextEncoderService_Encode_FullMethodName:   {done: Event{Trigger: PromptEncoded}, job: true},
	stagepb.DenoiserService_Denoise_FullMethodName:     {done: Event{Trigger: DenoiseDone}, job: true},
	stagepb.VaeService_DecodeLatents_FullMethodName:    {done: Event{Trigger: VAEDecoded}, job: true},
	stagepb.VaeService_EncodeImage_FullMethodName:      {done: Event{Trigger: VAEEncoded}, job: true},
	stagepb.StageService_LoadComponent_FullMethodName:  {done: Event{Trigger: ModelChanged, Force: true}, workFollows: true},
	stagepb.StageService_EvictComponent_FullMethodName: {done: Event{Trigger: ModelChanged, Force: true}},
}

var _ stats.Handler = (*Collector)(nil)

type callKey struct{}

// TagRPC implements stats.Handler.
func (c *Collector) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if k, ok := calls[info.FullMethodName]; ok {
		return context.WithValue(ctx, callKey{}, k)
	}
	return ctx
}

// HandleRPC implements stats.Handler. gRPC tells the end of a call behind its answer.
func (c *Collector) HandleRPC(ctx context.Context, s stats.RPCStats) {
	switch s := s.(type) {
	case *stats.Begin:
		if k, ok := ctx.Value(callKey{}).(call); ok {
			c.begin(k)
		}
	case *stats.End:
		if k, ok := ctx.Value(callKey{}).(call); ok {
			c.end(k, s.Error == nil)
		}
	}
}

// TagConn implements stats.Handler.
func (c *Collector) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (c *Collector) HandleConn(context.Context, stats.ConnStats) {}
