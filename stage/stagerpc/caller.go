package stagerpc

import (
	"cmp"
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/triptych-serving/triptych/stage"
)

// orchestratorKey is the metadata of every call that tells on behalf of which orchestrator it is made.
const orchestratorKey = "triptych-orchestrator"

// maxOrchestratorBytes bounds an id. A longer one is nobody's.
const maxOrchestratorBytes = 256

// As is conn, whose calls are made on behalf of an orchestrator, unless their context says of which.
func As(conn grpc.ClientConnInterface, orchestrator string) grpc.ClientConnInterface {
	if _, ok := conn.(callerConn); ok && orchestrator == "" {
		return conn
	}
	return callerConn{conn, orchestrator}
}

type callerConn struct {
	grpc.ClientConnInterface
	orchestrator string
}

func (c callerConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.ClientConnInterface.Invoke(c.outgoing(ctx), method, args, reply, opts...)
}

func (c callerConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.ClientConnInterface.NewStream(c.outgoing(ctx), desc, method, opts...)
}

func (c callerConn) outgoing(ctx context.Context) context.Context {
	if id := cmp.Or(stage.CallerOf(ctx).Orchestrator, c.orchestrator); id != "" {
		return metadata.AppendToOutgoingContext(ctx, orchestratorKey, id)
	}
	return ctx
}

// Incoming is the context of a call that has arrived, with its Caller.
func Incoming(ctx context.Context) context.Context {
	ids := metadata.ValueFromIncomingContext(ctx, orchestratorKey)
	if len(ids) == 0 || len(ids[0]) > maxOrchestratorBytes {
		return ctx
	}
	return stage.WithCaller(ctx, stage.Caller{Orchestrator: ids[0]})
}
