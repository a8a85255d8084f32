// Package rpcserver is the one way to run a gRPC server here: the orchestrator and the services of
// the stages listen, recover, log, tell their health and stop alike.
//
// The package knows no stage's service; it may import stage and stage/stagerpc for errors.
package rpcserver

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/reflection"

	"github.com/triptych-serving/triptych/stage/stagerpc"
)

const (
	defaultRecvBytes   = 4 << 20 // as grpc has it
	defaultStopTimeout = 5 * time.Second
)

// DefaultDrainTimeout is how long a process takes at most to end its work once it is told to, where nothing else is said. It is
// less than the 30 s that Kubernetes gives a pod.
const DefaultDrainTimeout = 20 * time.Second

// Options configure a Server. The zero value is a plaintext server that logs to slog.Default.
type Options struct {
	Logger         *slog.Logger
	TLS            TLS
	MaxRecvMsgSize int // 0 takes 4 MiB
	// MaxConnectionAge is how long a connection takes new calls, where clients balance over several replicas; those under way go on
	// over the old one. 0 is no limit.
	MaxConnectionAge time.Duration
	// Health is what the server tells of the process; nil is one that is always ready.
	Health      *Health
	StopTimeout time.Duration // for running calls once Serve's context has ended; 0 takes 5 s
	// Unary and Stream stand before every call's handler; nil stands for nothing.
	Unary  grpc.UnaryServerInterceptor
	Stream grpc.StreamServerInterceptor
}

// Server is a gRPC server with health and reflection. It is a grpc.ServiceRegistrar: register
// services before Serve.
type Server struct {
	grpc        *grpc.Server
	health      *Health
	told        *healthService
	logger      *slog.Logger
	stopTimeout time.Duration
}

var _ grpc.ServiceRegistrar = (*Server)(nil)

// New makes a server. It fails if the TLS files cannot be used.
func New(o Options) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.MaxRecvMsgSize == 0 {
		o.MaxRecvMsgSize = defaultRecvBytes
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = defaultStopTimeout
	}
	if o.Health == nil {
		o.Health = NewHealth()
		o.Health.Set(true, Startup)
		o.Health.SetReady(true)
	}
	creds := insecure.NewCredentials()
	if own, err := o.TLS.credentials(o.Logger); err != nil {
		return nil, err
	} else if own != nil {
		creds = toldHandshakes{own, newRefusals(o.Logger)}
	}
	// The log is outside: it sees what a recovered panic was turned into.
	unary := []grpc.UnaryServerInterceptor{logUnary(o.Logger), recoverUnary(o.Logger)}
	stream := []grpc.StreamServerInterceptor{logStream(o.Logger), recoverStream(o.Logger)}
	if o.Unary != nil {
		unary = append(unary, o.Unary)
	}
	if o.Stream != nil {
		stream = append(stream, o.Stream)
	}
	alive := stagerpc.ServerKeepalive()
	alive.MaxConnectionAge = o.MaxConnectionAge // with no end to the grace of running calls
	s := &Server{
		grpc: grpc.NewServer(
			grpc.Creds(creds),
			grpc.MaxRecvMsgSize(o.MaxRecvMsgSize),
			grpc.KeepaliveEnforcementPolicy(stagerpc.KeepalivePolicy()),
			grpc.KeepaliveParams(alive),
			grpc.ChainUnaryInterceptor(unary...),
			grpc.ChainStreamInterceptor(stream...),
		),
		health:      o.Health,
		logger:      o.Logger,
		stopTimeout: o.StopTimeout,
	}
	s.told = register(s.grpc, s.health)
	reflection.Register(s.grpc)
	return s, nil
}

// RegisterService adds a service, which is healthy from now on.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
	s.health.Set(true, desc.ServiceName)
}

// Health is what the server tells of the process.
func (s *Server) Health() *Health { return s.health }

// Cut ends the calls that run, and the server.
func (s *Server) Cut() { s.grpc.Stop() }

// Serve answers calls on lis until ctx ends and closes lis. Then it takes no new calls and gives the
// running ones StopTimeout before it cuts them. It returns nil after ctx has ended, else why it
// could not go on.
func (s *Server) Serve(ctx context.Context, lis net.Listener) error {
	stopped := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.stop()
	})
	s.logger.Info("listening", "address", lis.Addr().String())
	err := s.grpc.Serve(lis)
	if !cancel() {
		<-stopped
		return nil
	}
	s.grpc.Stop()
	if err != nil {
		return fmt.Errorf("serve on %s: %w", lis.Addr(), err)
	}
	return nil
}

// stop ends the server, at first politely.
func (s *Server) stop() {
	s.health.SetDraining(true)
	s.told.end()
	cut := time.AfterFunc(s.stopTimeout, func() {
		s.logger.Warn("calls still run, cutting them", "after", s.stopTimeout)
		s.grpc.Stop()
	})
	defer cut.Stop()
	s.grpc.GracefulStop()
}
