package rpcserver

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// The names under which a process tells its health as Kubernetes asks for it, beside those of its services. The empty name
// stands for Readiness.
const (
	Liveness  = "liveness"  // the process answers; it goes on while the process drains
	Readiness = "readiness" // it takes work
	Startup   = "startup"   // it has taken work once, or could have
)

// Health is the health of a process, which a Server tells, and ServeHealth on a listener of its own. Safe for concurrent use.
type Health struct {
	told *health.Server

	mu       sync.Mutex
	on       map[string]bool
	draining bool
}

// NewHealth is a process that lives and has not started.
func NewHealth() *Health {
	h := &Health{told: health.NewServer(), on: map[string]bool{}}
	h.Set(true, Liveness)
	h.Set(false, Startup)
	h.SetReady(false)
	return h
}

// Set turns names to SERVING or NOT_SERVING; while the process drains, NOT_SERVING is told of all but Liveness and Startup.
func (h *Health) Set(on bool, names ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range names {
		h.on[name] = on
		h.tell(name)
	}
}

// SetReady is Set for Readiness and the empty name.
func (h *Health) SetReady(on bool) { h.Set(on, Readiness, "") }

// SetDraining turns all names but Liveness and Startup to NOT_SERVING, and back to what they were set to.
func (h *Health) SetDraining(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = on
	for name := range h.on {
		h.tell(name)
	}
}

// tell passes on what is told of a name. h.mu is held.
func (h *Health) tell(name string) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if h.on[name] && (!h.draining || name == Liveness || name == Startup) {
		status = healthpb.HealthCheckResponse_SERVING
	}
	h.told.SetServingStatus(name, status)
}

// ServeHealth answers for h on lis, in plaintext, until ctx ends, and closes lis. It returns nil then, else why it could not go on.
// It tells nothing but health, so that who may not call the process can ask it how it is.
func ServeHealth(ctx context.Context, lis net.Listener, h *Health, log *slog.Logger) error {
	server := grpc.NewServer(grpc.MaxConcurrentStreams(maxProbes), grpc.MaxRecvMsgSize(maxProbeBytes))
	register(server, h)
	log.Info("health is told", "address", lis.Addr().String())
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	err := server.Serve(lis)
	server.Stop()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("tell health on %s: %w", lis.Addr(), err)
	}
	return nil
}

// What one connection may ask of ServeHealth: so many questions at once, of so many bytes.
const (
	maxProbes     = 16
	maxProbeBytes = 1 << 10
)

// healthService is the health that one server tells.
type healthService struct {
	*health.Server
	ending chan struct{}
	once   sync.Once
}

// register adds the health service to a server.
func register(r grpc.ServiceRegistrar, h *Health) *healthService {
	s := &healthService{Server: h.told, ending: make(chan struct{})}
	healthpb.RegisterHealthServer(r, s)
	return s
}

// end ends the streams of those who watch, which a server that stops would wait for.
func (s *healthService) end() { s.once.Do(func() { close(s.ending) }) }

// Watch implements the health service.
func (s *healthService) Watch(req *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		select {
		case <-s.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := s.Server.Watch(req, watcher{stream, ctx})
	if ctx.Err() != nil && stream.Context().Err() == nil {
		return status.Error(codes.Unavailable, "the server is shutting down")
	}
	return err
}

// watcher is the stream of somebody who watches until ctx ends.
type watcher struct {
	grpc.ServerStreamingServer[healthpb.HealthCheckResponse]
	ctx context.Context
}

// Context is the stream's, or ends before it.
func (w watcher) Context() context.Context { return w.ctx }
