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
	"time"

	"github.com/triptych-serving/triptych/internal/rpcserver"
	"github.com/triptych-serving/triptych/services/internal/host"
	"github.com/triptych-serving/triptych/services/internal/owner"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageplugin"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// defaultDrainTimeout is less than the 30 s that Kubernetes gives a pod to end.
const defaultDrainTimeout = 20 * time.Second

// Options configure the service of a stage.
type Options struct {
	// Command is the program of the runtime child and its arguments; Env is added to the service's
	// own environment.
	Command []string
	Env     []string
	// StartTimeout is how long a child may take to start; 0 takes stageplugin's.
	StartTimeout time.Duration
	// DrainTimeout is how long running work may go on once Run's context has ended; 0 takes 20 s.
	DrainTimeout time.Duration
	TLS          rpcserver.TLS
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
		o.DrainTimeout = defaultDrainTimeout
	}
	if len(o.Command) == 0 {
		return nil, errors.New("the " + kind.String() + " service needs the command of its runtime")
	}
	owned := owner.New(owner.Options{Kind: kind, Only: o.Owner, Logger: o.Logger})
	server, err := rpcserver.New(rpcserver.Options{
		Logger: o.Logger, TLS: o.TLS, MaxRecvMsgSize: stagerpc.MaxMessageBytes, Unary: owned.Unary, Stream: owned.Stream,
	})
	if err != nil {
		return nil, err
	}
	return &Service{kind: kind, options: o, server: server}, nil
}

// Run starts the runtime and serves on lis, which it closes, until ctx ends. Then it drains: it is
// NOT_SERVING and refuses new work, lets running work end within DrainTimeout and ends the rest with
// the child, so that its callers still hear RuntimeDied, and then ends the server. It returns nil
// after that, and otherwise why the runtime could not be started or the server not go on.
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
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.drain(ctx, serving, h)
		stop()
	}()
	err = s.server.Serve(serving, lis)
	stop()
	<-drained
	return err
}

// drain watches for the end of ctx and then drains h for good, and reports draining as health, whoever asked
// for it. It returns early when the server has ended.
func (s *Service) drain(ctx, serving context.Context, h *host.Host) {
	for drains, over := h.Draining(); ctx.Err() == nil; drains, over = h.Draining() {
		select {
		case <-serving.Done():
			return
		case <-ctx.Done():
		case <-drains:
			s.server.NotServing()
			select {
			case <-serving.Done():
				return
			case <-ctx.Done():
			case <-over:
				s.server.Serving()
			}
		}
	}
	s.server.NotServing()
	bound, cancel := context.WithTimeout(serving, s.options.DrainTimeout)
	defer cancel()
	s.options.Logger.Info("draining", "timeout", s.options.DrainTimeout)
	if err := h.Shut(bound); err != nil {
		s.options.Logger.Warn("work still runs, ending it", "error", err)
		h.Close()
	}
}
