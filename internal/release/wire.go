package release

import (
	"cmp"
	"context"

	"google.golang.org/grpc/stats"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
)

// calls are those of a stage that leave memory behind.
var calls = map[string]call{
	stagepb.WorkService_Work_FullMethodName:            {job: true},
	stagepb.StageService_LoadComponent_FullMethodName:  {done: Event{Trigger: ModelChanged, Force: true}, workFollows: true},
	stagepb.StageService_EvictComponent_FullMethodName: {done: Event{Trigger: ModelChanged, Force: true}},
}

// turns are those whose triggers have names of old.
var turns = map[string]Trigger{"encode": PromptEncoded, "denoise": DenoiseDone, "encode_image": VAEEncoded, "decode": VAEDecoded}

// done is the trigger of a turn that has been taken.
func done(turn string) Trigger { return cmp.Or(turns[turn], Trigger(turn+"_done")) }

var _ stats.Handler = (*Collector)(nil)

type callKey struct{}

// TagRPC implements stats.Handler.
func (c *Collector) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if k, ok := calls[info.FullMethodName]; ok {
		return context.WithValue(ctx, callKey{}, &k)
	}
	return ctx
}

// HandleRPC implements stats.Handler. gRPC tells the end of a call behind its answer, and of its messages before that.
func (c *Collector) HandleRPC(ctx context.Context, s stats.RPCStats) {
	k, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return
	}
	switch s := s.(type) {
	case *stats.Begin:
		c.begin(*k)
	case *stats.InPayload:
		if m, ok := s.Payload.(*stagepb.WorkRequest); ok && m.GetOpen() != nil {
			k.done = Event{Trigger: done(m.GetOpen().GetTurn())}
		}
	case *stats.End:
		c.end(*k, s.Error == nil)
	}
}

// TagConn implements stats.Handler.
func (c *Collector) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (c *Collector) HandleConn(context.Context, stats.ConnStats) {}
