//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// Bounds that a takeover has, on a machine that may be busy.
const (
	takeover = 15 * time.Second // behind an owner's death
	handover = 5 * time.Second  // behind its end, where 2 s are usual
)

// ready waits until a server is ready for requests.
func (s *server) ready(ctx context.Context) error {
	health, err := healthpb.NewHealthClient(s.conn).Watch(ctx, &healthpb.HealthCheckRequest{Service: triptychv1alpha1.GenerationService_ServiceDesc.ServiceName})
	for err == nil {
		var now *healthpb.HealthCheckResponse
		if now, err = health.Recv(); now.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return nil
		}
	}
	return err
}

// soon waits no longer than a bound until a server is ready.
func (s *server) soon(t *testing.T, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := s.ready(ctx); err != nil {
		t.Fatalf("it is not ready within %v: %v\n%s", within, err, s.log)
	}
}

// standsBy checks that a server refuses a request at once, says when to ask again, and is not ready.
func (s *server) standsBy(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), takeover)
	defer cancel()
	_, err := s.generateFor(ctx, fox(1), nil)
	var reason string
	var delay time.Duration
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.RetryInfo:
			delay = d.GetRetryDelay().AsDuration()
		}
	}
	if status.Code(err) != codes.Unavailable || reason != string(stage.StageOwned) || delay <= 0 {
		t.Errorf("a standby answers %v, reason %s, retry after %v", err, reason, delay)
	}
	res, err := healthpb.NewHealthClient(s.conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil || res.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("the health of a standby is %v, %v", res, err)
	}
}

// picture makes the fox.
func (s *server) picture(t *testing.T) []byte {
	t.Helper()
	events, err := s.generate(t.Context(), fox(3), nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log)
	}
	return images(t, events)[0]
}

func fox(steps int32) *triptychv1alpha1.GenerationSpec {
	return &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: &steps, WidthPx: ptr(int32(32)), HeightPx: ptr(int32(32)), Seed: ptr(uint64(7))}
}

// end ends a server's process by a signal.
func (s *server) end(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil && signal != syscall.SIGKILL {
		t.Errorf("it ended with %v:\n%s", err, s.log)
	}
}

// TestStandby: of two orchestrators over the same services one works, and the other takes over behind its death or its end, with
// the same picture. A service that starts again stays with its owner.
func TestStandby(t *testing.T) {
	args := []string{"orchestrator", "--listen", "127.0.0.1:0"}
	services := map[stage.Kind]*server{}
	for _, kind := range stage.Kinds() {
		services[kind] = startServer(t, command(t, kind.String(), "--listen", "127.0.0.1:0"))
		args = append(args, "--"+kind.String(), services[kind].conn.Target())
	}
	start := func() *server { return startServer(t, command(t, args...)) }
	a := start()
	a.soon(t, patience)
	b := start()
	b.standsBy(t)
	want := a.picture(t)

	// The owner is killed in the middle of a request.
	cut := command(t, "generate", "fox", "--server", a.conn.Target(), "--steps", "500", "--json", "-o", t.TempDir()+"/fox.png")
	var said bytes.Buffer
	cut.Stderr = &said
	out, err := cut.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cut.Start(); err != nil {
		t.Fatal(err)
	}
	for lines, denoises := bufio.NewScanner(out), false; !denoises && lines.Scan(); {
		denoises = strings.Contains(lines.Text(), `"denoiser"`) && strings.Contains(lines.Text(), `"step"`)
	}
	died := time.Now()
	a.end(t, syscall.SIGKILL)
	if err := cut.Wait(); err == nil || !strings.Contains(said.String(), "the request may be repeated") {
		t.Errorf("the request that was cut ended with %v: %s", err, said.String())
	}
	b.soon(t, takeover)
	ready := time.Since(died)
	if got := b.picture(t); !bytes.Equal(got, want) {
		t.Error("the next owner makes another picture")
	}
	took := time.Since(died)
	t.Logf("behind the owner's death the next one was ready within %v, and had a picture within %v", ready, took)
	if took > takeover {
		t.Errorf("the first picture was there within %v", took)
	}

	// A service starts again while another orchestrator stands by.
	a = start()
	a.standsBy(t)
	denoiser := services[stage.KindDenoiser]
	denoiser.end(t, syscall.SIGKILL)
	startServer(t, command(t, "denoiser", "--listen", denoiser.conn.Target()))
	if got := b.picture(t); !bytes.Equal(got, want) {
		t.Error("behind the restart of a service the picture is another")
	}
	a.standsBy(t)

	// The owner ends well.
	left := time.Now()
	b.end(t, syscall.SIGTERM)
	ended := time.Since(left)
	a.soon(t, handover)
	t.Logf("the owner ended within %v, and the next one was ready within %v", ended, time.Since(left))
	if got := a.picture(t); !bytes.Equal(got, want) {
		t.Error("behind the owner's end the picture is another")
	}
	a.end(t, syscall.SIGTERM)

	// Two start at once.
	var pair [2]*server
	for i := range pair {
		pair[i] = start()
	}
	owners := make(chan *server, 2)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	var waiting sync.WaitGroup
	for _, s := range pair {
		waiting.Go(func() {
			if s.ready(ctx) == nil {
				owners <- s
			}
		})
	}
	owner := <-owners
	cancel()
	waiting.Wait()
	if got := owner.picture(t); !bytes.Equal(got, want) {
		t.Error("of two orchestrators the owner makes another picture")
	}
	for _, s := range pair {
		if s != owner {
			s.standsBy(t)
		}
	}
}
