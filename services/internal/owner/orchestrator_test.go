package owner

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// The bounds that hold on the bubble's clock.
const (
	takeover = 13 * time.Second        // behind an owner's death
	handover = 1500 * time.Millisecond // behind its leave
	settling = 30 * time.Second        // behind anything, networks that swallowed everything included
)

// orchestrator is a real fleet, which works where it can.
type orchestrator struct {
	*world
	index  int
	id     string
	fleet  *fleet.Fleet
	drains bool
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
	o.fleet, o.drains = f, false
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

// drain has it say that it begins nothing more.
func (o *orchestrator) drain() {
	if o.fleet != nil {
		o.drains = true
		o.fleet.Drain()
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

// heirs waits until all but the owner, which drains, are its heirs, for no longer than a bound, and checks that this lasts.
func (w *world) heirs(owner *orchestrator, within time.Duration) {
	w.t.Helper()
	check := func(fail func(string, ...any)) (ok bool) {
		w.t.Helper()
		ok = true
		for _, o := range w.orchestrators {
			if o.fleet == nil {
				continue
			}
			if now := o.fleet.Standing(); (now == fleet.Heir) == (o == owner) {
				fail("orchestrator %d is %v, behind %q", o.index, now, o.logs.all())
				ok = false
			}
		}
		if !owner.owns() {
			fail("the owner, orchestrator %d, has not all that it had", owner.index)
			ok = false
		}
		return ok
	}
	for begin := time.Now(); !check(func(string, ...any) {}) && time.Since(begin) < within; {
		time.Sleep(50 * time.Millisecond)
	}
	for begin := time.Now(); check(w.t.Errorf) && time.Since(begin) < 2*Silence; {
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
