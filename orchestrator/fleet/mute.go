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
	return f.Await(ctx, func() bool { return f.Mute(id) })
}

// Await returns when ok, which is asked at first and whenever there is news of a service, says so. The error is ctx's.
func (f *Fleet) Await(ctx context.Context, ok func() bool) error {
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

// Mute tells whether a service is, see AwaitMute. One that was forgotten is not.
func (f *Fleet) Mute(id residency.StageID) bool {
	m := f.member(id)
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mute
}

// Until is ctx until a service is mute, or is no longer: it has answered, or is gone. The caller must call the function returned.
func (f *Fleet) Until(ctx context.Context, id residency.StageID, mute bool) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		if f.Await(ctx, func() bool { return f.Mute(id) == mute }) == nil {
			cancel()
		}
	}()
	return ctx, cancel
}
