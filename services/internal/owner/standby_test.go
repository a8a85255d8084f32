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
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// The bounds that hold on the bubble's clock.
const (
	takeover = 13 * time.Second        // behind an owner's death
	handover = 1500 * time.Millisecond // behind its leave
	settling = 30 * time.Second        // behind anything, networks that swallowed everything included
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

// unranked is a call as a service sees it that knows no ranks.
func unranked(ctx context.Context) context.Context {
	in, _ := metadata.FromIncomingContext(ctx)
	in = in.Copy()
	in.Delete("triptych-rank")
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

// orchestrator is a real fleet, which works where it can.
type orchestrator struct {
	*world
	index  int
	id     string
	fleet  *fleet.Fleet
	keeper *residency.Keeper
	stop   func()
	logs   *lines
}

func (o *orchestrator) start() {
	if o.fleet != nil {
		return
	}
	time.Sleep(time.Millisecond) // a rank is of a millisecond
	o.id, o.logs = fmt.Sprintf("orchestrator %d, %d", o.index, rand.Uint64()), &lines{Handler: slog.DiscardHandler}
	o.keeper = residency.New(residency.Options{})
	addresses, at := map[stage.Kind][]string{}, map[string]int{}
	for _, s := range o.services {
		name := fmt.Sprint(s.index)
		addresses[s.kind], at[name] = append(addresses[s.kind], "passthrough:///"+name), s.index
	}
	f, err := fleet.New(fleet.Options{
		ID: o.id, Addresses: addresses, Keeper: o.keeper, Logger: slog.New(o.logs),
		Dial: []grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, name string) (net.Conn, error) { return o.dial(ctx, o.index, at[name]) }),
		},
	})
	if err != nil {
		o.t.Fatal(err)
	}
	o.fleet = f
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { f.Run(ctx) })
	for _, s := range o.services { // work without a lease, wherever the fleet gives some
		address := fmt.Sprintf("passthrough:///%d", s.index)
		run.Go(func() {
			for ctx.Err() == nil {
				for _, at := range f.Services() {
					if at.Address == address && at.Problem == "" {
						_ = f.Stage(residency.StageID(address)).Load(ctx, stage.LoadRequest{Component: stagetest.Component(s.kind, stagetest.Model)}, nil)
					}
				}
				select {
				case <-time.After(300 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	o.stop = func() {
		cancel()
		run.Wait()
		o.keeper.Close()
	}
}

// kill ends it without a word.
func (o *orchestrator) kill() { o.end(func() {}) }

// leave ends it well.
func (o *orchestrator) leave() { o.end(func() { o.fleet.Leave() }) }

func (o *orchestrator) end(last func()) {
	if o.fleet == nil {
		return
	}
	o.stop()
	last()
	if err := o.fleet.Close(); err != nil {
		o.t.Error(err)
	}
	o.fleet = nil
}

// owns tells whether it has every service, as it sees it and as they do.
func (o *orchestrator) owns() bool {
	if o.fleet == nil || o.fleet.Standing() != fleet.Owner {
		return false
	}
	for _, s := range o.fleet.Services() {
		if s.Problem != "" {
			return false
		}
	}
	for _, s := range o.services {
		if s.id() != o.id {
			return false
		}
	}
	return true
}

// lines counts the changes of standing that were logged.
type lines struct {
	slog.Handler
	mu    sync.Mutex
	stood []string
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "standing among orchestrators" {
		l.mu.Lock()
		defer l.mu.Unlock()
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "standing" {
				l.stood = append(l.stood, a.Value.String())
			}
			return true
		})
	}
	return nil
}

func (l *lines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.stood, " ")
}

// settled waits until one orchestrator owns everything and the others stand by, for no longer than a bound, and gives it.
func (w *world) settled(within time.Duration) *orchestrator {
	w.t.Helper()
	begin := time.Now()
	for {
		var owner *orchestrator
		standby, running := 0, 0
		for _, o := range w.orchestrators {
			switch {
			case o.fleet == nil:
				continue
			case o.owns():
				owner = o
			case o.fleet.Standing() == fleet.Standby:
				standby++
			}
			running++
		}
		if owner != nil && standby == running-1 {
			return owner
		}
		if time.Since(begin) > within {
			for _, o := range w.orchestrators {
				if o.fleet != nil {
					w.t.Errorf("orchestrator %d, %s: %v, behind %q: %+v", o.index, o.id, o.fleet.Standing(), o.logs.all(), o.fleet.Services())
				}
			}
			for _, s := range w.services {
				w.t.Errorf("the %v is of %q", s.kind, s.id())
			}
			w.t.Fatalf("nobody owns everything behind %v", within)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// lasts fails if anybody's standing changes within a while.
func (w *world) lasts() {
	w.t.Helper()
	var before []string
	tell := func() (all []string) {
		for _, o := range w.orchestrators {
			if o.fleet != nil {
				all = append(all, fmt.Sprint(o.index, " was ", o.logs.all()))
			}
		}
		return all
	}
	before = tell()
	time.Sleep(2 * Silence)
	if now := tell(); fmt.Sprint(now) != fmt.Sprint(before) {
		w.t.Errorf("it does not last: %q, then %q", before, now)
	}
	w.settled(0)
}

// runs is how often something random is tried: less often where that takes long.
func runs(many int) int {
	if raced || testing.Short() {
		return many / 10
	}
	return many
}

// TestStandby: of two orchestrators one has all services, and the other one takes over.
func TestStandby(t *testing.T) {
	for name, old := range map[string]bool{"": false, "services of old": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2)
				defer w.end()
				a, b := w.orchestrators[0], w.orchestrators[1]
				for _, s := range w.services {
					s.old = old
					s.start()
				}
				owner := func(want *orchestrator, within time.Duration) {
					t.Helper()
					if got := w.settled(within); got != want {
						t.Errorf("orchestrator %d owns the services, want %d", got.index, want.index)
					}
					w.lasts()
				}
				a.start()
				owner(a, handover)
				b.start()
				owner(a, handover)
				w.services[1].stop()
				w.services[1].start()
				owner(a, 2*handover)
				a.kill()
				owner(b, takeover)
				a.start()
				owner(b, handover)
				b.leave()
				owner(a, 2*handover)
			})
		})
	}
}

// TestBothAtOnce: of two orchestrators that start together one has all services soon, whoever was faster where.
func TestBothAtOnce(t *testing.T) {
	for range runs(30) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 2)
			defer w.end()
			for _, s := range w.services {
				s.start()
			}
			var starts sync.WaitGroup
			for _, o := range w.orchestrators {
				starts.Go(o.start)
			}
			starts.Wait()
			w.settled(2 * handover)
			w.lasts()
		})
	}
}

// TestSplit: services that two orchestrators share out, since each could not reach the others', come to the elder one.
func TestSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.end()
		a, b := w.orchestrators[0], w.orchestrators[1]
		for _, s := range w.services {
			s.start()
		}
		w.set(0, 2, broken)
		w.set(1, 0, broken)
		w.set(1, 1, broken)
		a.start()
		b.start()
		time.Sleep(time.Minute)
		if x, y := w.services[0].id(), w.services[2].id(); x != a.id || y != b.id {
			t.Fatalf("the services are of %q and %q", x, y)
		}
		for i := range w.services {
			w.set(0, i, whole)
			w.set(1, i, whole)
		}
		if w.settled(2*handover) != a {
			t.Error("the younger one has the services")
		}
		w.lasts()
	})
}

// TestNobodysElder: an orchestrator that tells no rank keeps its services, and another one has them behind its end.
func TestNobodysElder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		o := w.orchestrators[0]
		look := func(s *service, leaving bool) {
			t.Helper()
			conn, err := grpc.NewClient("passthrough:///", append(stagerpc.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.listener.DialContext(ctx) }))...)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx := stage.WithCaller(t.Context(), stage.Caller{Leaving: leaving})
			if _, err := stagerpc.New(stagerpc.As(conn, "old", ""), s.kind).Info(ctx); err != nil {
				t.Errorf("a look by the owner: %v", err)
			}
		}
		for _, s := range w.services {
			s.start()
			look(s, false)
		}
		o.start()
		for range 20 {
			time.Sleep(time.Second)
			for _, s := range w.services {
				look(s, false)
			}
		}
		if got := o.logs.all(); o.fleet.Standing() != fleet.Standby || got != "standby" {
			t.Errorf("its standing was %q", got)
		}
		for _, s := range w.services {
			look(s, true)
		}
		w.settled(2 * handover)
	})
}

// TestInterleavings: whatever happens to orchestrators, services and the network between, no service works for two, and behind the
// last change one orchestrator soon owns everything, and stays the owner.
func TestInterleavings(t *testing.T) {
	for seed := range runs(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { interleave(t, rand.New(rand.NewPCG(uint64(seed), 14))) })
		})
	}
}

func interleave(t *testing.T, r *rand.Rand) {
	w := newWorld(t, 2+r.IntN(2))
	defer w.end()
	for _, s := range w.services {
		s.start()
	}
	for range 5 + r.IntN(15) {
		o, s := w.orchestrators[r.IntN(len(w.orchestrators))], w.services[r.IntN(len(w.services))]
		switch r.IntN(10) {
		case 0, 1, 2:
			o.start()
		case 3:
			o.kill()
		case 4:
			o.leave()
		case 5:
			s.stop()
		case 6:
			s.start()
		case 7, 8:
			w.set(o.index, s.index, linkState(r.IntN(3)))
		case 9: // as of a process that is stopped
			for _, s := range w.services {
				w.set(o.index, s.index, swallows)
			}
		}
		time.Sleep([]time.Duration{time.Millisecond, 200 * time.Millisecond, 2 * time.Second, 11 * time.Second}[r.IntN(4)])
	}
	for i := range w.orchestrators {
		for j := range w.services {
			w.set(i, j, whole)
		}
	}
	for _, s := range w.services {
		s.start()
	}
	w.orchestrators[0].start()
	time.Sleep(settling)
	w.settled(0)
	w.lasts()
}
