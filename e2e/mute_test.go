//go:build linux

package e2e

import (
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// cable forwards connections to an address, and as long as it is cut keeps what is sent, both ways, and closes nothing: what
// is behind it is silent, as behind a network that drops every packet.
type cable struct {
	lis net.Listener

	mu    sync.Mutex
	whole chan struct{} // closed unless it is cut
}

// lay lays a cable, which is taken out when the test ends.
func lay(t *testing.T, to string) *cable {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{lis: lis, whole: make(chan struct{})}
	close(c.whole)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			near, err := lis.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			for _, ends := range [][2]net.Conn{{near, far}, {far, near}} {
				all.Go(func() {
					_, _ = io.Copy(cableEnd{ends[1], c}, ends[0])
					_ = ends[0].Close()
					_ = ends[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		c.mend()
		_ = lis.Close()
		all.Wait()
	})
	return c
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole = make(chan struct{})
}

func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.whole:
	default:
		close(c.whole)
	}
}

// cableEnd is where a cable writes to.
type cableEnd struct {
	net.Conn
	c *cable
}

func (e cableEnd) Write(p []byte) (int, error) {
	e.c.mu.Lock()
	whole := e.c.whole
	e.c.mu.Unlock()
	<-whole
	return e.Conn.Write(p)
}

// pair is services of which there are two denoisers behind cables; the first is where work goes that could go to both.
type pair struct {
	*server // the orchestrator
	cable   *cable
	first   *server
}

func newPair(t *testing.T) *pair {
	t.Helper()
	serve := func(kind string) *server {
		return startServer(t, command(t, kind, "--listen", "127.0.0.1:0", "--log-level", "info"))
	}
	p := &pair{}
	var denoisers []string
	for range 2 {
		d := serve("denoiser")
		c := lay(t, d.conn.Target())
		if denoisers = append(denoisers, c.lis.Addr().String()); slices.Min(denoisers) == c.lis.Addr().String() { // the order of the ledger
			p.first, p.cable = d, c
		}
	}
	p.server = startServer(t, command(t, "orchestrator", "--listen", "127.0.0.1:0", "--log-level", "info", "--encoder", serve("encoder").conn.Target(),
		"--denoiser", strings.Join(denoisers, ","), "--decoder", serve("decoder").conn.Target()))
	for begin := time.Now(); slices.ContainsFunc(p.services(t), func(s *triptychv1alpha1.StageService) bool { return s.GetProblem() != "" }); {
		if time.Since(begin) > patience { // both are to be there before work goes to the first of them
			t.Fatalf("the services are not all there: %v", p.services(t))
		}
		time.Sleep(20 * time.Millisecond)
	}
	return p
}

// services are all that the orchestrator was told of.
func (s *server) services(t *testing.T) []*triptychv1alpha1.StageService {
	t.Helper()
	list, err := triptychv1alpha1.NewModelServiceClient(s.conn).ListModels(t.Context(), &triptychv1alpha1.ListModelsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return list.GetServices()
}

// TestMuteService: whatever makes a service silent, its work goes on in another one within seconds, for the same picture; what
// it does later disturbs nobody.
func TestMuteService(t *testing.T) {
	signal := func(pid int, signal syscall.Signal) {
		if err := syscall.Kill(pid, signal); err != nil {
			t.Error(err)
		}
	}
	for name, c := range map[string]struct{ hang, heal func(p *pair) }{
		"service is stopped": {
			func(p *pair) { signal(p.first.cmd.Process.Pid, syscall.SIGSTOP) },
			func(p *pair) { signal(p.first.cmd.Process.Pid, syscall.SIGCONT) },
		},
		"runtime is stopped": {
			func(p *pair) { signal(p.first.find(t, program+" runtime denoiser"), syscall.SIGSTOP) },
			func(*pair) {},
		},
		"connection is cut": {func(p *pair) { p.cable.cut() }, func(p *pair) { p.cable.mend() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // nearly all of it is waiting
			p := newPair(t)
			quiet, err := p.generate(t.Context(), longSpec(), nil)
			if err != nil {
				t.Fatal(err)
			}
			want := images(t, quiet)
			var hung, next time.Time
			heal := sync.OnceFunc(func() { c.heal(p) })
			defer heal()
			events, err := p.generate(t.Context(), longSpec(), func(e *triptychv1alpha1.GenerateResponse) {
				switch g := e.GetProgress(); {
				case g.GetStage() != "denoiser":
				case hung.IsZero() && g.GetStep() >= 12:
					c.hang(p)
					hung = time.Now()
				case !hung.IsZero() && next.IsZero() && time.Since(hung) > 2*time.Second: // what was on its way has come
					if next = time.Now(); g.GetStep() < 10 || g.GetStep() > 30 {
						t.Errorf("it went on from step %d", g.GetStep())
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			same(t, want, images(t, events))
			if took := next.Sub(hung); next.IsZero() || took > moves {
				t.Errorf("the work went on after %v", took)
			} else {
				t.Logf("the work went on after %v", took)
			}
			if !warned(events, "STAGE_RESTARTED", "not answer") {
				t.Errorf("nobody warned of it: %v", events)
			}
			heal()
			for range 3 { // while the one that is back finds out what became of its work
				if events, err = p.generate(t.Context(), longSpec(), nil); err != nil {
					t.Fatal(err)
				}
				same(t, want, images(t, events))
			}
		})
	}
}
