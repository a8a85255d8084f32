package owner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// world is services, orchestrators over them, and the links between.
type world struct {
	t             *testing.T
	services      []*service
	orchestrators []*orchestrator

	mu    sync.Mutex
	links map[*link]bool
	state map[[2]int]linkState // by orchestrator and service
}

type linkState int

const (
	whole linkState = iota
	broken
	swallows // everything, without a word
)

func newWorld(t *testing.T, orchestrators int) *world {
	w := &world{t: t, links: map[*link]bool{}, state: map[[2]int]linkState{}}
	for i, kind := range stage.Kinds() {
		w.services = append(w.services, &service{world: w, index: i, kind: kind, works: map[string]context.Context{}})
	}
	for i := range orchestrators {
		w.orchestrators = append(w.orchestrators, &orchestrator{world: w, index: i})
	}
	return w
}

// end ends everything.
func (w *world) end() {
	for _, o := range w.orchestrators {
		o.kill()
	}
	for _, s := range w.services {
		s.stop()
	}
}

// set changes the links between an orchestrator and a service; those that swallowed something are then of no use.
func (w *world) set(orchestrator, service int, state linkState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state[[2]int{orchestrator, service}] = state
	for l := range w.links {
		if l.ends == [2]int{orchestrator, service} && state != swallows {
			l.cut()
		} else if l.ends == [2]int{orchestrator, service} {
			l.swallow()
		}
	}
}

// link is a connection of an orchestrator.
type link struct {
	net.Conn
	ends    [2]int
	cut     func() // idempotent
	swallow func() // idempotent
	gone    chan struct{}
	deaf    chan struct{}
}

func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	select {
	case <-l.deaf:
		<-l.gone
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (l *link) Write(p []byte) (int, error) {
	select {
	case <-l.deaf:
		return len(p), nil
	default:
		return l.Conn.Write(p)
	}
}

func (l *link) Close() error {
	l.cut()
	return nil
}

func (w *world) dial(ctx context.Context, orchestrator, to int) (net.Conn, error) {
	s, ends := w.services[to], [2]int{orchestrator, to}
	w.mu.Lock()
	listener, state := s.listener, w.state[ends]
	w.mu.Unlock()
	switch {
	case state == swallows:
		<-ctx.Done()
		return nil, ctx.Err()
	case state == broken, listener == nil:
		return nil, errors.New("nobody listens")
	}
	conn, err := listener.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	l := &link{Conn: conn, ends: ends, gone: make(chan struct{}), deaf: make(chan struct{})}
	l.cut = sync.OnceFunc(func() {
		close(l.gone)
		_ = conn.Close()
	})
	l.swallow = sync.OnceFunc(func() { close(l.deaf) })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.links[l] = true
	if w.state[ends] != whole { // by now
		l.cut()
	}
	return l, nil
}

// service is a fake behind a real ownership.
type service struct {
	*world
	index int
	kind  stage.Kind
	old   bool // knows nothing of ranks

	listener *bufconn.Listener // world.mu holds these two
	works    map[string]context.Context
	owner    *Ownership
	server   *grpc.Server
	served   chan error
}

func (s *service) start() {
	if s.server != nil {
		return
	}
	quiet := slog.New(slog.DiscardHandler)
	s.owner = New(Options{Kind: s.kind, Logger: quiet})
	unary, stream := s.owner.Unary, s.owner.Stream
	if s.old {
		unary = func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			return s.owner.Unary(unranked(ctx), req, info, next)
		}
		stream = func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return s.owner.Stream(srv, admitted{stream, unranked(stream.Context())}, info, next)
		}
	}
	s.server = grpc.NewServer(append(stagerpc.ServerOptions(), grpc.ChainUnaryInterceptor(unary), grpc.ChainStreamInterceptor(stream), grpc.WaitForHandlers(true))...)
	stagerpc.Register(s.server, s.kind, watched{stagetest.New(s.kind, nil), s}, quiet)
	listener, served, server := bufconn.Listen(1<<20), make(chan error, 1), s.server
	s.served = served
	go func() { served <- server.Serve(listener) }()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listener = listener
}

// unranked is a call as a service sees it that knows no ranks, and of no draining.
func unranked(ctx context.Context) context.Context {
	in, _ := metadata.FromIncomingContext(ctx)
	in = in.Copy()
	in.Delete("triptych-rank")
	in.Delete("triptych-draining")
	return metadata.NewIncomingContext(ctx, in)
}

func (s *service) stop() {
	if s.server == nil {
		return
	}
	s.mu.Lock()
	s.listener = nil
	s.mu.Unlock()
	s.server.Stop()
	<-s.served
	s.server = nil
}

// id is that of the owner, empty if there is none.
func (s *service) id() string {
	s.owner.mu.Lock()
	defer s.owner.mu.Unlock()
	if !s.owner.alive(time.Now()) {
		return ""
	}
	return s.owner.owner.id
}

// watched is a stage where loads take a while, and are done for one orchestrator at a time.
type watched struct {
	stage.Stage
	s *service
}

func (w watched) Load(ctx context.Context, _ stage.LoadRequest, _ func(int64, int64)) error {
	id := stage.CallerOf(ctx).Orchestrator
	key := fmt.Sprint(id, rand.Uint64())
	w.s.mu.Lock()
	var others []context.Context
	for other, at := range w.s.works {
		if !strings.HasPrefix(other, id) {
			others = append(others, at)
		}
	}
	w.s.works[key] = ctx
	w.s.mu.Unlock()
	defer func() {
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		delete(w.s.works, key)
	}()
	time.Sleep(time.Nanosecond) // of the bubble's: whatever is cut by now has heard of it
	for _, other := range others {
		if other.Err() == nil && ctx.Err() == nil {
			w.s.t.Errorf("the %v works for two", w.s.kind)
		}
	}
	select {
	case <-time.After(time.Minute):
	case <-ctx.Done():
	}
	return ctx.Err()
}
