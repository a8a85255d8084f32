// Package owner is which orchestrator a service works for: two that load and evict behind each other's back would both
// be wrong about what is in memory. It stands before every method of every stage service, so that none can forget to ask.
//
// It may import stage, stage/stagerpc, proto and grpc.
package owner

import (
	"context"
	"crypto/subtle"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// Silence is how long an orchestrator may be silent before another one gets the service. It asks every second.
const Silence = 10 * time.Second

// guarded is the prefix of methods that need an owner's leave: those of stages, and none of health and reflection.
const guarded = "/triptych.stage."

// Options say whom a service may work for.
type Options struct {
	Kind   stage.Kind
	Only   string // the one orchestrator that may own the service; empty is whoever comes first
	Logger *slog.Logger
	Now    func() time.Time // nil is time.Now
}

// Ownership is the owner of a service. Its interceptors are safe for concurrent use; mu is a leaf.
type Ownership struct {
	Options
	mu    sync.Mutex
	owner *owner // nil is nobody
}

// owner is an orchestrator.
type owner struct {
	id     string     // a secret among the orchestrator and its services
	rank   stage.Rank // empty if it tells none
	drains bool       // as it has told under this rank
	seen   time.Time
	over   context.Context // ended, with StageOwned as its cause, when the service is another's, or nobody's
	end    context.CancelCauseFunc
}

// New gives a service to nobody yet.
func New(o Options) *Ownership {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Ownership{Options: o}
}

// Unary lets calls in as admit says. Whoever tells of no orchestrator may always look, and a standby while nobody owns the service.
func (o *Ownership) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	caller := stage.CallerOf(stagerpc.Incoming(ctx))
	looks := info.FullMethod == stagepb.StageService_GetStageInfo_FullMethodName
	if looks && caller.Standby {
		if err := o.free(); err != nil {
			return nil, stagerpc.ToStatus(ctx, o.Logger, err)
		}
	}
	if !strings.HasPrefix(info.FullMethod, guarded) || looks && caller.Orchestrator == "" {
		return next(ctx, req)
	}
	in, done, err := o.admit(ctx, caller)
	if err != nil {
		return nil, stagerpc.ToStatus(ctx, o.Logger, err)
	}
	defer done()
	res, err := next(in, req)
	if m, ok := req.(*stagepb.GetStageInfoRequest); ok && m.GetLeaving() {
		o.release(caller.Orchestrator)
	} else if err != nil {
		err = o.cut(ctx, in, err)
	}
	return res, err
}

// Stream is Unary for calls that stream.
func (o *Ownership) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if !strings.HasPrefix(info.FullMethod, guarded) {
		return next(srv, stream)
	}
	ctx := stream.Context()
	in, done, err := o.admit(ctx, stage.CallerOf(stagerpc.Incoming(ctx)))
	if err != nil {
		return stagerpc.ToStatus(ctx, o.Logger, err)
	}
	defer done()
	if err = next(srv, admitted{stream, in}); err != nil {
		err = o.cut(ctx, in, err)
	}
	return err
}

// admitted is a stream of a caller that was let in.
type admitted struct {
	grpc.ServerStream
	ctx context.Context
}

func (a admitted) Context() context.Context { return a.ctx }

// cut is StageOwned for a call that failed because the service is its caller's no more.
func (o *Ownership) cut(ctx, in context.Context, err error) error {
	if cause := context.Cause(in); ctx.Err() == nil && stage.ReasonOf(cause) == stage.StageOwned {
		return stagerpc.ToStatus(ctx, o.Logger, cause)
	}
	return err
}

// free is StageOwned while somebody owns the service or is meant to.
func (o *Ownership) free() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.alive(o.Now()) || o.Only != "" {
		return o.owned()
	}
	return nil
}

// alive tells whether the service has an owner that is not silent for too long. mu is held.
func (o *Ownership) alive(now time.Time) bool {
	return o.owner != nil && now.Sub(o.owner.seen) < Silence
}

// admit lets a caller in who is the owner or becomes it, because there is none or it has been silent for too long. A
// caller that tells of no orchestrator is let in while nobody owns the service, nor is meant to. Else the error is StageOwned.
// Who is gone by now gets nothing. The context returned ends when the caller is the owner no more; done is to be called behind the call.
func (o *Ownership) admit(ctx context.Context, caller stage.Caller) (admitted context.Context, done func(), err error) {
	now, id := o.Now(), caller.Orchestrator
	o.mu.Lock()
	defer o.mu.Unlock()
	last := o.owner
	switch {
	case ctx.Err() != nil: // it may have left meanwhile
		return nil, nil, ctx.Err()
	case o.alive(now) && !same(id, last.id), o.Only != "" && !same(id, o.Only):
		return nil, nil, o.owned()
	case id == "":
		return ctx, func() {}, nil
	case last == nil || !same(id, last.id):
		next := &owner{id: id, rank: caller.Rank}
		next.over, next.end = context.WithCancelCause(context.Background())
		o.owner = next
		if last != nil {
			o.Logger.Warn("the orchestrator is silent, another one takes over", "silent", now.Sub(last.seen))
			last.end(o.owned())
		}
		last = next
	}
	last.drains = caller.Draining || last.drains && last.rank == caller.Rank
	last.seen, last.rank = now, caller.Rank
	admitted, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(last.over, func() { cancel(context.Cause(last.over)) })
	return admitted, func() {
		stop()
		cancel(nil)
		if ctx.Err() != nil { // what ends because its caller is gone tells nothing of that one
			return
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		last.seen = o.Now()
	}, nil
}

// release gives the service back, if the caller owns it, and cuts what it still does for that one.
func (o *Ownership) release(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owner != nil && same(id, o.owner.id) {
		o.Logger.Info("the orchestrator has left")
		left := o.owner
		o.owner = nil
		left.end(o.owned())
	}
}

// same compares ids in a time that tells nothing of them.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// owned is StageOwned, with what is known of who owns the service now. mu is held.
func (o *Ownership) owned() *stage.Error {
	if o.owner == nil {
		return stagerpc.Owned(o.Kind, "", false)
	}
	return stagerpc.Owned(o.Kind, o.owner.rank, o.owner.drains)
}
