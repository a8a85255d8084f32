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
	"slices"
	"sync"
	"testing"

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
	// Before is called before work, with the name of the turn, and planning, with "plan"; what it returns fails them.
	Before func(ctx context.Context, call string) error
	// Looked hears of every look.
	Looked func(ctx context.Context)
	// Planned may change what planning returns.
	Planned func(*stage.Footprint)
	// Made may change a file that work returns.
	Made func(*stage.File)
	// Server are options of its server, beside the usual ones.
	Server []grpc.ServerOption

	looks Record[stage.Info]
	works Record[stage.WorkRequest]

	mu       sync.Mutex
	stage    stage.Stage
	edit     func(*stage.Info)
	hangs    chan struct{} // closed when questions how it is are answered again, nil while they are
	listener *bufconn.Listener
	server   *grpc.Server
	stopping chan struct{} // closed by Stop
	served   chan error
}

// NewService makes a fake with nothing resident. It does not run.
func NewService(kind stage.Kind, name string) *Service { return At(kind, passthrough+name) }

// passthrough begins an address that is not looked up.
const passthrough = "passthrough:///"

// At is NewService at an address, such as 10.0.0.1:7422, that may be found behind a name.
func At(kind stage.Kind, address string) *Service {
	s := &Service{Address: address, Kind: kind, Script: &stagetest.Script{}}
	s.Before = func(context.Context, string) error { return nil }
	s.Forget()
	return s
}

// ID is how the keeper names it.
func (s *Service) ID() residency.StageID { return residency.StageID(s.Address) }

// Forget makes the service lose all it holds, as when its program starts again.
func (s *Service) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage = hooked{stagetest.New(s.Kind, s.Script), s}
}

// Stage is the fake itself.
func (s *Service) Stage() stage.Stage {
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
func (s *Service) Looks(t testing.TB, n int) {
	t.Helper()
	n += len(s.looks.All())
	s.looks.Await(t, "a look at "+s.Address, func(stage.Info) bool { n--; return n == 0 })
}

// Works are the requests for a turn that the service was given.
func (s *Service) Works(turn string) []stage.WorkRequest {
	return slices.DeleteFunc(slices.Clone(s.works.All()), func(r stage.WorkRequest) bool { return r.Turn != turn })
}

// Start makes the service reachable.
func (s *Service) Start() {
	log := slog.New(slog.DiscardHandler)
	server := grpc.NewServer(slices.Concat(stagerpc.ServerOptions(), s.Server, []grpc.ServerOption{grpc.WaitForHandlers(true)})...)
	stagerpc.Register(server, s.Kind, s.Stage(), log)
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

var errNobody = errors.New("nobody listens")

func (s *Service) dial(ctx context.Context) (net.Conn, error) {
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	if l == nil {
		return nil, errNobody
	}
	return l.DialContext(ctx)
}

// hooked is a fake with a service's hooks in front.
type hooked struct {
	stage.Stage
	s *Service
}

// Info is what a stage says of itself, edited, once nothing hangs.
func (h hooked) Info(ctx context.Context) (stage.Info, error) {
	s := h.s
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
	info, err := h.Stage.Info(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.edit != nil {
		s.edit(&info)
	}
	s.looks.Add(info)
	return info, err
}

// Plan is what a stage plans, once nothing fails it.
func (h hooked) Plan(ctx context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	if err := h.s.Before(ctx, "plan"); err != nil {
		return stage.Footprint{}, err
	}
	f, err := h.Stage.Plan(ctx, req)
	if err == nil && h.s.Planned != nil {
		h.s.Planned(&f)
	}
	return f, err
}

// Work is a stage's, once nothing fails it.
func (h hooked) Work(ctx context.Context, req stage.WorkRequest, observer stage.Observer) (stage.Result, error) {
	h.s.works.Add(req)
	if err := h.s.Before(ctx, req.Turn); err != nil {
		return stage.Result{}, err
	}
	result, err := h.Stage.Work(ctx, req, observer)
	for _, v := range result.Values {
		if v.File != nil && h.s.Made != nil {
			h.s.Made(v.File)
		}
	}
	return result, err
}
