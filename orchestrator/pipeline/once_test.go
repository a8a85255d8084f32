package pipeline_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/stage"
)

// meter counts the bytes that a server receives in each call of Work.
type meter struct {
	mu    sync.Mutex
	calls []*int
}

type meterKey struct{}

func (m *meter) TagRPC(ctx context.Context, i *stats.RPCTagInfo) context.Context {
	if !strings.HasSuffix(i.FullMethodName, "/Work") {
		return ctx
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, new(int))
	return context.WithValue(ctx, meterKey{}, m.calls[len(m.calls)-1])
}

func (m *meter) HandleRPC(ctx context.Context, s stats.RPCStats) {
	in, ok := s.(*stats.InPayload)
	if n, counted := ctx.Value(meterKey{}).(*int); ok && counted {
		m.mu.Lock()
		defer m.mu.Unlock()
		*n += in.Length
	}
}

func (m *meter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (m *meter) HandleConn(context.Context, stats.ConnStats)                       {}

// TestConditioningOnce: what all images of a job share is sent to a denoiser once.
func TestConditioningOnce(t *testing.T) {
	var m meter
	r := over(fleettest.New(t, fleettest.Trio()...))
	s := r.Service(stage.KindDenoiser)
	s.Server = append(s.Server, grpc.StatsHandler(&m))
	for _, s := range r.Services {
		s.Start()
	}
	spec := r.spec(t)
	spec.ImageCount = 3
	r.good(t, spec)
	shared := 0
	for _, w := range s.Works("denoise") {
		states, _ := w.Values.Get("hidden_states")
		shared = len(states.Tensor.Data)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.calls) != 3 || shared == 0 {
		t.Fatalf("%d calls, %d bytes are shared", len(m.calls), shared)
	}
	for i, n := range m.calls[1:] {
		if *n > *m.calls[0]-shared {
			t.Errorf("image %d took %d bytes, the first %d, of which %d are shared", i+1, *n, *m.calls[0], shared)
		}
	}
}
