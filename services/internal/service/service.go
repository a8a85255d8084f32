// Package service is what the services of the stages have in common: a gRPC server in front of a
// supervised runtime child.
//
// It may import internal/rpcserver, services/internal/host, stage and its siblings.
package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/triptych-serving/triptych/internal/rpcserver"
	"github.com/triptych-serving/triptych/services/internal/host"
	"github.com/triptych-serving/triptych/services/internal/owner"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageplugin"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// defaultStartTimeout has room for reading what hundreds of models are from a slow volume. Who waits for the start of a service has
// a patience of his own.
const defaultStartTimeout = 5 * time.Minute

// Options configure the service of a stage.
type Options struct {
	// Command is the program of the runtime child and its arguments; Env is added to the service's
	// own environment.
	Command []string
	Env     []string
	// StartTimeout is how long a child may take to start; 0 takes 5 minutes.
	StartTimeout time.Duration
	// DrainTimeout is how long Run may take to return once its context has ended; 0 takes rpcserver's default.
	DrainTimeout time.Duration
	TLS          rpcserver.TLS
	Health       *rpcserver.Health // that the service keeps up to date; nil makes one, which its server alone tells
	// Owner is the id of the one orchestrator that the service works for; empty is whoever comes first.
	Owner  string
	Logger *slog.Logger // nil takes slog.Default
}

// Service is the service of one stage. It runs once.
type Service struct {
	kind    stage.Kind
	options Options
	server  *rpcserver.Server
}

// New prepares the service; it fails if the options cannot be used.
func New(kind stage.Kind, o Options) (*Service, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Logger = o.Logger.With("service", kind.String())
	if o.DrainTimeout == 0 {
		o.DrainTimeout = rpcserver.DefaultDrainTimeout
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = defaultStartTimeout
	}
	if len(o.Command) == 0 {
		return nil, errors.New("the " + kind.String() + " service needs the command of its runtime")
	}
	if o.Health == nil {
		o.Health = rpcserver.NewHealth()
	}
	owned := owner.New(owner.Options{Kind: kind, Only: o.Owner, Logger: o.Logger})
	server, err := rpcserver.New(rpcserver.Options{
		Logger: o.Logger, TLS: o.TLS, Health: o.Health, MaxRecvMsgSize: stagerpc.MaxMessageBytes, Unary: owned.Unary, Stream: owned.Stream,
	})
	if err != nil {
		return nil, err
	}
	return &Service{kind: kind, options: o, server: server}, nil
}

// Run starts the runtime and serves on lis, which it closes, until ctx ends. Then it drains, see drain, and returns nil within
// DrainTimeout. Otherwise the error is why the runtime could not be started or the server not go on.
func (s *Service) Run(ctx context.Context, lis net.Listener) error {
	defer lis.Close() //nolint:errcheck // the server has usually closed it
	h, err := host.New(ctx, stageplugin.Options{
		Kind: s.kind, Command: s.options.Command, Env: s.options.Env,
		Logger: s.options.Logger, StartTimeout: s.options.StartTimeout,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer h.Close()
	stagerpc.Register(s.server, s.kind, h, s.options.Logger)

	// The server outlives ctx by the time it takes to drain.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var all sync.WaitGroup
	all.Go(func() { s.watch(serving, h) })
	var late *time.Timer
	all.Go(func() {
		late = s.drain(ctx, serving, h)
		stop()
	})
	err = s.server.Serve(serving, lis)
	stop()
	all.Wait()
	h.Close()
	if late != nil {
		late.Stop()
	}
	return err
}

// endReserve is how much of a drain timeout is kept for what follows the work: its last answers and the end of the runtime.
func endReserve(timeout time.Duration) time.Duration { return min(timeout/4, 2*time.Second) }

// drain watches for the end of ctx and then drains h for good, and reports draining as health, whoever asked
// for it. At the end of ctx the service is NOT_SERVING and refuses new work; what runs may end, or is cut behind a checkpoint or at
// the end of its time, so that its caller hears StageDraining and goes on elsewhere. The timer ends whatever is left in the end. It
// returns nil, and early, when the server has ended.
func (s *Service) drain(ctx, serving context.Context, h *host.Host) (late *time.Timer) {
	for drains, over := h.Draining(); ctx.Err() == nil; drains, over = h.Draining() {
		select {
		case <-serving.Done():
			return nil
		case <-ctx.Done():
		case <-drains:
			s.options.Health.SetDraining(true)
			select {
			case <-serving.Done():
				return nil
			case <-ctx.Done():
			case <-over:
				s.options.Health.SetDraining(false)
			}
		}
	}
	s.options.Health.SetDraining(true)
	timeout := s.options.DrainTimeout
	s.options.Logger.Info("draining", "timeout", timeout)
	late = time.AfterFunc(timeout-endReserve(timeout)/2, func() {
		s.server.Cut()
		h.End()
	})
	bound, cancel := context.WithTimeout(serving, timeout-endReserve(timeout))
	defer cancel()
	if err := h.Shut(bound); err != nil {
		s.options.Logger.Warn("work still ran, it was cut", "error", err)
	}
	return late
}
