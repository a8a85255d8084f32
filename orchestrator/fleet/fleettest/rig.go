package fleettest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// Rig is a fleet over services, and its keeper.
type Rig struct {
	Fleet    *fleet.Fleet
	Keeper   *residency.Keeper
	Services []*Service
	End      func() // ends the watching of the services, and returns when it has ended; idempotent

	Events Record[residency.Event] // every decision about memory
	Logs   Record[string]          // what the fleet says
}

// Trio makes one service of each kind.
func Trio() []*Service {
	var out []*Service
	for _, kind := range stage.Kinds() {
		out = append(out, NewService(kind, kind.String()))
	}
	return out
}

// New runs a fleet over services until the test ends. It starts none of them, but stops them all.
func New(t testing.TB, services ...*Service) *Rig {
	t.Helper()
	return With(t, fleet.Options{}, services...)
}

// With is New of a fleet with further options. Its addresses, if there are any, are all that it is told; else they are those of the
// services.
func With(t testing.TB, o fleet.Options, services ...*Service) *Rig {
	t.Helper()
	r := &Rig{Services: services}
	r.Keeper = residency.New(residency.Options{Sink: r.Events.Add})
	addresses := map[stage.Kind][]string{}
	byName := map[string]*Service{}
	for _, s := range services {
		addresses[s.Kind] = append(addresses[s.Kind], s.Address)
		byName[strings.TrimPrefix(s.Address, passthrough)] = s
	}
	if o.Addresses == nil {
		o.Addresses = addresses
	}
	var err error
	o.Keeper, o.Logger = r.Keeper, slog.New(logs{slog.DiscardHandler, &r.Logs})
	o.Dial = []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, name string) (net.Conn, error) {
			if s := byName[name]; s != nil {
				return s.dial(ctx)
			}
			return nil, errNobody
		}),
	}
	r.Fleet, err = fleet.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { r.Fleet.Run(ctx) })
	r.End = func() {
		cancel()
		run.Wait()
	}
	t.Cleanup(func() {
		r.End()
		if err := r.Fleet.Close(); err != nil {
			t.Errorf("closing the fleet: %v", err)
		}
		for _, s := range services {
			if err := s.Stop(); err != nil {
				t.Errorf("stopping %s: %v", s.Address, err)
			}
		}
		r.Keeper.Close()
	})
	return r
}

// Up is New with one service of each kind, all of them running and known.
func Up(t testing.TB) *Rig {
	t.Helper()
	r := New(t, Trio()...)
	for _, s := range r.Services {
		s.Start()
	}
	r.Known(t)
	return r
}

// Known waits until every kind of stage is known.
func (r *Rig) Known(t testing.TB) {
	t.Helper()
	if _, err := r.Fleet.Model(Soon(t), "no such model", time.Hour); stage.ReasonOf(err) != stage.ModelNotFound {
		t.Fatalf("waiting for the stages: %v", err)
	}
}

// Service is the first of a kind.
func (r *Rig) Service(kind stage.Kind) *Service {
	for _, s := range r.Services {
		if s.Kind == kind {
			return s
		}
	}
	panic(fmt.Sprintf("no %v", kind))
}

// Leased tells whether any stage is at work, as far as the keeper knows.
func (r *Rig) Leased() bool {
	return slices.ContainsFunc(r.Keeper.Snapshot().Stages, func(s residency.StageUse) bool { return s.Leased })
}

// Used is what counts on the devices, in bytes.
func (r *Rig) Used() (bytes int64) {
	for _, d := range r.Keeper.Snapshot().Devices {
		bytes += d.UsedBytes
	}
	return bytes
}

// Unleased waits until no stage is at work, as far as the keeper knows.
func (r *Rig) Unleased(t testing.TB) {
	t.Helper()
	r.Events.Await(t, "the end of all work", func(residency.Event) bool { return !r.Leased() })
}

// Soon is a context that ends long after all that a test waits for should have come.
func Soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Record is what came, in order. Safe for concurrent use.
type Record[T any] struct {
	mu      sync.Mutex
	all     []T
	changed chan struct{}
}

// Add appends.
func (r *Record[T]) Add(v T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, v)
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// All is what came so far.
func (r *Record[T]) All() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}

// Await waits for one that is ok, and fails the test if none comes.
func (r *Record[T]) Await(t testing.TB, what string, ok func(T) bool) {
	t.Helper()
	ctx := Soon(t)
	for seen := 0; ; {
		r.mu.Lock()
		fresh := r.all[seen:]
		seen = len(r.all)
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		for _, v := range fresh {
			if ok(v) {
				return
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s did not come, only %+v", what, r.All())
		}
	}
}

// logs is a slog.Handler that keeps messages, with their cause if they have one.
type logs struct {
	slog.Handler
	to *Record[string]
}

func (l logs) Enabled(context.Context, slog.Level) bool { return true }
func (l logs) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l logs) WithGroup(string) slog.Handler            { return l }
func (l logs) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "cause" {
			text += ": " + a.Value.String()
		}
		return true
	})
	l.to.Add(text)
	return nil
}
