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

// requestKey is the metadata of calls that tells for which request they are made.
const requestKey = "triptych-request"

// maxIDBytes bounds an id. A longer one is nobody's.
const maxIDBytes = 256

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
		ctx = metadata.AppendToOutgoingContext(ctx, orchestratorKey, id)
	}
	if id := stage.CallerOf(ctx).Request; id != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, requestKey, id)
	}
	return ctx
}

// Incoming is the context of a call that has arrived, with its Caller.
func Incoming(ctx context.Context) context.Context {
	c := stage.Caller{Orchestrator: told(ctx, orchestratorKey), Request: told(ctx, requestKey)}
	if c == (stage.Caller{}) {
		return ctx
	}
	return stage.WithCaller(ctx, c)
}

// RequestOf is the id of the request that a call is for, of one that was made here or has arrived; empty if there is none.
func RequestOf(ctx context.Context) string {
	return cmp.Or(stage.CallerOf(ctx).Request, told(ctx, requestKey))
}

// told is an id in the metadata of a call that has arrived.
func told(ctx context.Context, key string) string {
	if ids := metadata.ValueFromIncomingContext(ctx, key); len(ids) > 0 && len(ids[0]) <= maxIDBytes {
		return ids[0]
	}
	return ""
}
