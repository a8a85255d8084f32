package fleet

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/stats"

	"github.com/triptych-serving/triptych/orchestrator/residency"
)

// ear hears whatever a service sends, of any call: who tells of the progress of its work lives, however long it lets a question
// wait.
type ear struct {
	born  time.Time
	heard atomic.Int64 // nanoseconds since then
}

var _ stats.Handler = (*ear)(nil)

func newEar() *ear { return &ear{born: time.Now()} }

func (e *ear) heardSince(t time.Time) bool { return e.heard.Load() > int64(t.Sub(e.born)) }

// HandleRPC implements stats.Handler.
func (e *ear) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s.(type) {
	case *stats.InHeader, *stats.InPayload, *stats.InTrailer:
		e.heard.Store(int64(time.Since(e.born)))
	}
}

// TagRPC implements stats.Handler.
func (e *ear) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements stats.Handler.
func (e *ear) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (e *ear) HandleConn(context.Context, stats.ConnStats) {}

// Patience is how long a service that is mute has been so at least.
const Patience = infoTimeout

// AwaitMute returns when a service is mute: it has not answered for Patience over a connection that stands, and nothing was
// heard of its work either, as of one that is stopped or behind a network that swallows everything. The error is ctx's.
func (f *Fleet) AwaitMute(ctx context.Context, id residency.StageID) error {
	return f.await(ctx, func() bool { return f.Mute(id) })
}

// AwaitVoice returns when a service is not mute: it has answered, or is gone. The error is ctx's.
func (f *Fleet) AwaitVoice(ctx context.Context, id residency.StageID) error {
	return f.await(ctx, func() bool { return !f.Mute(id) })
}

func (f *Fleet) await(ctx context.Context, ok func() bool) error {
	for ctx.Err() == nil {
		changed := f.next()
		if ok() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// Mute tells whether a service is, see AwaitMute.
func (f *Fleet) Mute(id residency.StageID) bool {
	m := f.members[id]
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mute
}

// unlessMute is ctx for a call that is of no use to its caller once the service is mute. The caller must call the function
// returned.
func (f *Fleet) unlessMute(ctx context.Context, id residency.StageID) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		if f.AwaitMute(ctx, id) == nil {
			cancel()
		}
	}()
	return ctx, cancel
}
