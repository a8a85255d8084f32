package owner

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

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

// TestHeirs: while the owner drains it keeps every service, the others are its heirs, whether they were there before or come then,
// and one of them has all services soon behind its end.
func TestHeirs(t *testing.T) {
	for name, end := range map[string]struct {
		end    func(*orchestrator)
		within time.Duration
	}{
		"leaves": {(*orchestrator).leave, 2 * handover},
		"dies":   {(*orchestrator).kill, takeover},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3)
				defer w.end()
				a, b, c := w.orchestrators[0], w.orchestrators[1], w.orchestrators[2]
				for _, s := range w.services {
					s.start()
				}
				a.start()
				w.settled(handover)
				b.start()
				w.settled(handover)
				a.drain()
				w.heirs(a, handover)
				c.start()
				w.heirs(a, handover)
				end.end(a)
				next := w.settled(end.within)
				w.lasts()
				next.drain()
				w.heirs(next, handover)
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
// last change one orchestrator soon owns everything, and stays the owner: while it drains as well, and then another one is.
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
		switch r.IntN(11) {
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
		case 10:
			o.drain()
		case 9: // as of a process that is stopped
			for _, s := range w.services {
				w.set(o.index, s.index, swallows)
			}
		}
		time.Sleep([]time.Duration{time.Millisecond, 200 * time.Millisecond, 2 * time.Second, 11 * time.Second}[r.IntN(4)])
	}
	for i, o := range w.orchestrators {
		for j := range w.services {
			w.set(i, j, whole)
		}
		if o.drains {
			o.leave()
		}
	}
	for _, s := range w.services {
		s.start()
	}
	w.orchestrators[0].start()
	time.Sleep(settling)
	owner := w.settled(0)
	w.lasts()
	owner.drain()
	w.heirs(owner, 2*handover)
	owner.leave()
	w.orchestrators[0].start() // somebody is there, if not before
	w.settled(2 * handover)
}
