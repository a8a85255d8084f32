// Package fleettest has stage services for tests of the orchestrator: stagetest's fakes behind real
// gRPC in memory, which can go away and come back, and a fleet and a keeper over them.
//
// Nothing but tests may import it.
package fleettest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// Service is a fake stage at an address. The funcs are to be set before it starts.
type Service struct {
	Address string
	Kind    stage.Kind
	Script  *stagetest.Script
	// Before is called before work (encode, denoise, decode) and planning; what it returns fails them.
	Before func(ctx context.Context, call string) error
	// Looked hears of every look.
	Looked func(ctx context.Context)
	// Planned may change what planning returns.
	Planned func(*stage.Footprint)
	// Decoded may change what a decoder returns.
	Decoded func(*stage.Image)

	mu       sync.Mutex
	stage    stage.Resident
	edit     func(*stage.Info)
	hangs    chan struct{} // closed when questions how it is are answered again, nil while they are
	looks    int
	looked   chan struct{} // closed and renewed by every look
	encodes  []stage.EncodeRequest
	denoises []stage.DenoiseRequest
	listener *bufconn.Listener
	server   *grpc.Server
	stopping chan struct{} // closed by Stop
	served   chan error
}

// NewService makes a fake with nothing resident. It does not run.
func NewService(kind stage.Kind, name string) *Service {
	s := &Service{Address: "passthrough:///" + name, Kind: kind, Script: &stagetest.Script{}, looked: make(chan struct{})}
	s.Forget()
	return s
}

// ID is how the keeper names it.
func (s *Service) ID() residency.StageID { return residency.StageID(s.Address) }

// Forget makes the service lose all it holds, as when its program starts again.
func (s *Service) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.Kind {
	case stage.KindEncoder:
		s.stage = encoder{stagetest.NewEncoder(s.Script), s}
	case stage.KindDenoiser:
		s.stage = denoiser{stagetest.NewDenoiser(s.Script), s}
	default:
		s.stage = decoder{stagetest.NewDecoder(s.Script), s}
	}
}

// Stage is the fake itself.
func (s *Service) Stage() stage.Resident {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stage
}

// Edit changes what the service tells about itself from now on.
func (s *Service) Edit(edit func(*stage.Info)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.edit = edit
}

// Hang makes the service, which stays connected, not answer when it is asked how it is, not even that it is late, until the
// func returned is called.
func (s *Service) Hang() (answer func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hangs := make(chan struct{})
	s.hangs = hangs
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.hangs == hangs {
			s.hangs = nil
			close(hangs)
		}
	}
}

// Looks waits until the service has been asked n times more how it is.
func (s *Service) Looks(ctx context.Context, n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for target := s.looks + n; s.looks < target; {
		looked := s.looked
		s.mu.Unlock()
		select {
		case <-looked:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// Encodes are the requests that an encoder was given.
func (s *Service) Encodes() []stage.EncodeRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.encodes
}

// Denoises are the requests that a denoiser was given.
func (s *Service) Denoises() []stage.DenoiseRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.denoises
}

// Start makes the service reachable.
func (s *Service) Start() {
	log := slog.New(slog.DiscardHandler)
	server := grpc.NewServer(append(stagerpc.ServerOptions(), grpc.WaitForHandlers(true))...)
	switch st := s.Stage().(type) {
	case encoder:
		stagerpc.RegisterEncoder(server, st, log)
	case denoiser:
		stagerpc.RegisterDenoiser(server, st, log)
	case decoder:
		stagerpc.RegisterDecoder(server, st, log)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listener, s.server, s.served, s.stopping = bufconn.Listen(1<<20), server, make(chan error, 1), make(chan struct{})
	go func(l net.Listener, served chan<- error) { served <- server.Serve(l) }(s.listener, s.served)
}

// Stop cuts every connection and makes the service unreachable, if it is reachable.
func (s *Service) Stop() error {
	s.mu.Lock()
	server, served, stopping := s.server, s.served, s.stopping
	s.listener, s.server = nil, nil
	s.mu.Unlock()
	if server == nil {
		return nil
	}
	close(stopping)
	server.Stop()
	return <-served
}

func (s *Service) dial(ctx context.Context) (net.Conn, error) {
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	if l == nil {
		return nil, errors.New("nobody listens")
	}
	return l.DialContext(ctx)
}

func (s *Service) before(ctx context.Context, call string) error {
	if s.Before == nil {
		return nil
	}
	return s.Before(ctx, call)
}

// info is what a stage says of itself, edited, once nothing hangs.
func (s *Service) info(ctx context.Context, st stage.Resident) (stage.Info, error) {
	s.mu.Lock()
	hangs, stopping := s.hangs, s.stopping
	s.mu.Unlock()
	if hangs != nil {
		select {
		case <-hangs:
		case <-stopping: // that the time is over is no more said than anything else
		}
	}
	if s.Looked != nil {
		s.Looked(ctx)
	}
	info, err := st.Info(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.edit != nil {
		s.edit(&info)
	}
	s.looks++
	close(s.looked)
	s.looked = make(chan struct{})
	return info, err
}
