package service_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/triptych-serving/triptych/internal/rpcserver"
	"github.com/triptych-serving/triptych/services/denoiser"
	"github.com/triptych-serving/triptych/services/internal/service"
	"github.com/triptych-serving/triptych/services/internal/servicetest"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// probe asks for health as Kubernetes does.
type probe struct {
	client  healthpb.HealthClient
	watches map[string]healthpb.Health_WatchClient
}

// listenHealth tells the health of a service on a listener of its own, as its program does.
func listenHealth(t *testing.T, o *service.Options) *probe {
	t.Helper()
	o.Health = rpcserver.NewHealth()
	lis, err := rpcserver.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rpcserver.ServeHealth(ctx, lis, o.Health, slog.New(slog.DiscardHandler)) }()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ServeHealth: %v", err)
		}
	})
	return &probe{healthpb.NewHealthClient(conn), map[string]healthpb.Health_WatchClient{}}
}

// want checks which names answer SERVING now.
func (p *probe) want(t *testing.T, when string, want ...string) {
	t.Helper()
	var got []string
	for _, name := range []string{rpcserver.Liveness, rpcserver.Startup, rpcserver.Readiness} {
		res, err := p.client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		if err != nil {
			t.Fatalf("%s: %s: %v", when, name, err)
		}
		if res.GetStatus() == serving {
			got = append(got, name)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q are SERVING, want %q", when, got, want)
	}
}

// await waits until a name is as wanted.
func (p *probe) await(t *testing.T, name string, want healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	w, err := p.watches[name], error(nil)
	if w == nil {
		w, err = p.client.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		p.watches[name] = w
	}
	for err == nil {
		var res *healthpb.HealthCheckResponse
		if res, err = w.Recv(); res.GetStatus() == want && err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", name, err)
}

// gate holds the start of each child until it is opened.
type gate string

func newGate(t *testing.T, o *service.Options) gate {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	o.Env = append(o.Env, servicetest.GateKey+"="+path)
	return gate(path)
}

// open waits for a child and lets it start.
func (g gate) open(t *testing.T) {
	t.Helper()
	file, err := os.OpenFile(string(g), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
}

// TestHealth: health is told while the runtime starts, which may take long; a runtime that dies and is back at once leaves the service
// ready, one that is not does not. Meanwhile it lives.
func TestHealth(t *testing.T) {
	o := servicetest.Options(stage.KindDenoiser, "exit denoise 2 9")
	p, g := listenHealth(t, &o), newGate(t, &o)
	s, err := denoiser.New(o)
	r := servicetest.Start(t, s, err)
	p.want(t, "starting", rpcserver.Liveness)
	g.open(t)
	p.await(t, rpcserver.Readiness, serving)
	p.want(t, "started", rpcserver.Liveness, rpcserver.Startup, rpcserver.Readiness)

	d := stagerpc.New(r.Conn, stage.KindDenoiser)
	die := func() {
		t.Helper()
		if err := d.Load(t.Context(), stage.LoadRequest{Component: unet}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Work(t.Context(), stagetest.Request(stage.KindDenoiser), stage.Observer{}); stage.ReasonOf(err) != stage.RuntimeDied {
			t.Fatalf("work that ends the runtime: %v", err)
		}
	}
	die()
	p.want(t, "starting again", rpcserver.Liveness, rpcserver.Startup, rpcserver.Readiness)
	g.open(t)
	die()
	p.await(t, rpcserver.Readiness, notServing) // after a while
	p.want(t, "starting again for long", rpcserver.Liveness, rpcserver.Startup)
	g.open(t)
	p.await(t, rpcserver.Readiness, serving)
	p.want(t, "back", rpcserver.Liveness, rpcserver.Startup, rpcserver.Readiness)
}

// TestHealthStopsAtStart: a service that is told to end while its runtime starts does so.
func TestHealthStopsAtStart(t *testing.T) {
	o := servicetest.Options(stage.KindDenoiser, "")
	p := listenHealth(t, &o)
	newGate(t, &o)
	s, err := denoiser.New(o)
	r := servicetest.Start(t, s, err)
	p.want(t, "starting", rpcserver.Liveness)
	r.Stop()
	<-r.Done
	p.want(t, "ended", rpcserver.Liveness)
}

// TestHealthWhileDraining: who is evicted is ready; who drains is not, and lives and has started.
func TestHealthWhileDraining(t *testing.T) {
	o := servicetest.Options(stage.KindDenoiser, "hold denoise 2")
	p := listenHealth(t, &o)
	r, d := run(t, o)
	p.await(t, rpcserver.Readiness, serving)
	if _, err := d.Evict(t.Context(), stage.EvictRequest{Component: unet}); err != nil {
		t.Fatal(err)
	}
	p.want(t, "evicted", rpcserver.Liveness, rpcserver.Startup, rpcserver.Readiness)
	if err := d.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.await(t, rpcserver.Readiness, notServing)
	p.want(t, "drained by its orchestrator", rpcserver.Liveness, rpcserver.Startup)
	if err := d.Undrain(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.await(t, rpcserver.Readiness, serving)

	if err := d.Load(t.Context(), stage.LoadRequest{Component: unet}, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	begun, result := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := d.Work(ctx, stagetest.Request(stage.KindDenoiser), stage.Observer{Progress: func(int, int) { close(begun) }})
		result <- err
	}()
	<-begun
	r.Stop()
	p.await(t, rpcserver.Readiness, notServing)
	p.want(t, "draining", rpcserver.Liveness, rpcserver.Startup)
	if info, err := d.Info(t.Context()); err != nil || !info.Draining {
		t.Errorf("Info: %+v, %v", info, err)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("the work: %v", err)
	}
	<-r.Done
	p.want(t, "ended", rpcserver.Liveness, rpcserver.Startup)
}

// TestHealthOfModels: without a model the service does not start, and with none that can be used it is not ready; the log says why.
func TestHealthOfModels(t *testing.T) {
	for models, c := range map[string]struct {
		says string
		on   []string
	}{
		"none":   {"found no model", []string{rpcserver.Liveness}},
		"torn":   {"its weights are cut off", []string{rpcserver.Liveness, rpcserver.Startup}},
		"broken": {"its files are damaged", []string{rpcserver.Liveness, rpcserver.Startup}},
	} {
		t.Run(models, func(t *testing.T) {
			o := servicetest.Options(stage.KindDenoiser, "")
			o.Env = append(o.Env, servicetest.ModelsKey+"="+models)
			said := make(chan string, 1)
			o.Logger = slog.New(slog.NewTextHandler(lines(func(line string) {
				if strings.Contains(line, "not ready") {
					said <- line
				}
			}), nil))
			p := listenHealth(t, &o)
			s, err := denoiser.New(o)
			servicetest.Start(t, s, err)
			if line := <-said; !strings.Contains(line, c.says) {
				t.Errorf("the log says %s", line)
			}
			p.want(t, models, c.on...)
		})
	}
}

// lines hears each line of a log.
type lines func(line string)

func (l lines) Write(p []byte) (int, error) {
	l(string(p))
	return len(p), nil
}
