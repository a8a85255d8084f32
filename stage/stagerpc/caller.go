package stagerpc

import (
	"cmp"
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/triptych-serving/triptych/stage"
)

// orchestratorKey is the metadata of every call that tells on behalf of which orchestrator it is made.
const orchestratorKey = "triptych-orchestrator"

// rankKey is the metadata of every call that tells the rank of the orchestrator that makes it.
const rankKey = "triptych-rank"

// drainingKey is the metadata of a call whose orchestrator drains.
const drainingKey = "triptych-draining"

// ownerRankKey is the metadata of StageOwned that tells the rank of the owner.
const ownerRankKey = "owner_rank"

// ownerDrainingKey is the metadata of StageOwned that tells that the owner drains.
const ownerDrainingKey = "owner_draining"

// requestKey is the metadata of calls that tells for which request they are made.
const requestKey = "triptych-request"

// maxIDBytes bounds an id and a rank. A longer one is nobody's.
const maxIDBytes = 256

// As is conn, whose calls are made on behalf of an orchestrator of a rank, unless their context says of which. Either may be empty.
func As(conn grpc.ClientConnInterface, orchestrator string, rank stage.Rank) grpc.ClientConnInterface {
	if _, ok := conn.(callerConn); ok && orchestrator == "" && rank == "" {
		return conn
	}
	return callerConn{conn, orchestrator, rank}
}

type callerConn struct {
	grpc.ClientConnInterface
	orchestrator string
	rank         stage.Rank
}

func (c callerConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.ClientConnInterface.Invoke(c.outgoing(ctx), method, args, reply, opts...)
}

func (c callerConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.ClientConnInterface.NewStream(c.outgoing(ctx), desc, method, opts...)
}

func (c callerConn) outgoing(ctx context.Context) context.Context {
	caller := stage.CallerOf(ctx)
	if id := cmp.Or(caller.Orchestrator, c.orchestrator); id != "" && !caller.Standby {
		ctx = metadata.AppendToOutgoingContext(ctx, orchestratorKey, id)
	}
	if rank := cmp.Or(caller.Rank, c.rank); rank != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, rankKey, string(rank))
	}
	if caller.Draining {
		ctx = metadata.AppendToOutgoingContext(ctx, drainingKey, "true")
	}
	if caller.Request != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, requestKey, caller.Request)
	}
	return ctx
}

// Incoming is the context of a call that has arrived, with its Caller.
func Incoming(ctx context.Context) context.Context {
	c := stage.Caller{Orchestrator: told(ctx, orchestratorKey), Rank: stage.Rank(told(ctx, rankKey)), Request: told(ctx, requestKey)}
	c.Standby = c.Orchestrator == "" && c.Rank != ""
	c.Draining = told(ctx, drainingKey) == "true"
	if c == (stage.Caller{}) {
		return ctx
	}
	return stage.WithCaller(ctx, c)
}

// RequestOf is the id of the request that a call is for, of one that was made here or has arrived; empty if there is none.
func RequestOf(ctx context.Context) string {
	return cmp.Or(stage.CallerOf(ctx).Request, told(ctx, requestKey))
}

// Owned is StageOwned of a service of a kind that works for an orchestrator of a rank, which may be empty, and may drain.
func Owned(kind stage.Kind, by stage.Rank, draining bool) *stage.Error {
	e := stage.Errorf(stage.StageOwned, "the %v service works for another orchestrator", kind).With("stage", kind.String())
	if by != "" {
		e = e.With(ownerRankKey, string(by))
	}
	if draining {
		e = e.With(ownerDrainingKey, "true")
	}
	return e
}

// OwnerRank is the rank that StageOwned tells, empty if it tells none.
func OwnerRank(err error) stage.Rank { return stage.Rank(ofOwner(err, ownerRankKey)) }

// OwnerDraining tells whether StageOwned tells that the owner drains.
func OwnerDraining(err error) bool { return ofOwner(err, ownerDrainingKey) == "true" }

func ofOwner(err error, key string) string {
	if e := (*stage.Error)(nil); errors.As(err, &e) && e.Reason == stage.StageOwned {
		return e.Metadata[key]
	}
	return ""
}

// told is an id in the metadata of a call that has arrived.
func told(ctx context.Context, key string) string {
	if ids := metadata.ValueFromIncomingContext(ctx, key); len(ids) > 0 && len(ids[0]) <= maxIDBytes {
		return ids[0]
	}
	return ""
}
