package rpcserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// told is the names that answer SERVING, of those that are asked for.
func told(t *testing.T, conn *grpc.ClientConn, names ...string) (on []string) {
	t.Helper()
	for _, name := range names {
		res, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		if err != nil {
			t.Fatalf("health of %q: %v", name, err)
		}
		if res.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			on = append(on, name)
		}
	}
	return on
}

func wantTold(t *testing.T, conn *grpc.ClientConn, when string, want ...string) {
	t.Helper()
	got := told(t, conn, Liveness, Startup, Readiness, "", service)
	if len(got) != len(want) {
		t.Errorf("%s: %q are SERVING, want %q", when, got, want)
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s: %q are SERVING, want %q", when, got, want)
		}
	}
}

// listenHealth tells h's health on a listener of its own until the test ends, or stop.
func listenHealth(t *testing.T, h *Health) (conn *grpc.ClientConn, stop func()) {
	t.Helper()
	lis, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ServeHealth(ctx, lis, h, slog.New(slog.DiscardHandler)) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Errorf("ServeHealth = %v", err)
			}
			if _, err := lis.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the listener was not closed: %v", err)
			}
		}
	}
	t.Cleanup(stop)
	return dial(t, lis.Addr().String()), stop
}

// TestHealthStates: each name has its own meaning, alike on both listeners, and draining leaves liveness alone.
func TestHealthStates(t *testing.T) {
	h := NewHealth()
	early, _ := listenHealth(t, h)
	if on := told(t, early, Liveness, Startup, Readiness, ""); len(on) != 1 || on[0] != Liveness {
		t.Errorf("before the server is there: %q", on)
	}
	r := serve(t, Options{Health: h}, func(context.Context) error { return nil })
	all := map[string]*grpc.ClientConn{"health listener": early, "main listener": dial(t, r.addr)}
	steps := []struct {
		when string
		do   func()
		want []string
	}{
		{"starting", func() {}, []string{Liveness, service}},
		{"started", func() { h.Set(true, Startup) }, []string{Liveness, Startup, service}},
		{"ready", func() { h.SetReady(true) }, []string{Liveness, Startup, Readiness, "", service}},
		{"draining", func() { h.SetDraining(true) }, []string{Liveness, Startup}},
		{"draining, and news", func() { h.SetReady(true); h.Set(true, service) }, []string{Liveness, Startup}},
		{"not draining", func() { h.SetDraining(false) }, []string{Liveness, Startup, Readiness, "", service}},
		{"not ready", func() { h.SetReady(false) }, []string{Liveness, Startup, service}},
		{"hung", func() { h.Set(false, Liveness) }, []string{Startup, service}},
	}
	for _, s := range steps {
		s.do()
		for name, conn := range all {
			wantTold(t, conn, s.when+", "+name, s.want...)
		}
	}
	_, err := healthpb.NewHealthClient(early).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nobody"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("an unknown name: %v", err)
	}
	if err := callUnary(t.Context(), early); status.Code(err) != codes.Unimplemented {
		t.Errorf("a call on the health listener: %v", err)
	}
}

// TestHealthListenerOfTLS: who has no certificate can ask for health, and for nothing else.
func TestHealthListenerOfTLS(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue(t, "server", 1)
	h := NewHealth()
	r := serve(t, Options{Health: h, TLS: TLS{CertFile: cert, KeyFile: key, ClientCAFile: a.file}}, func(context.Context) error { return nil })
	plain, _ := listenHealth(t, h)
	h.SetReady(true)
	wantTold(t, plain, "plaintext", Liveness, Readiness, "", service)
	if err := callUnary(t.Context(), dial(t, r.addr)); status.Code(err) != codes.Unavailable {
		t.Errorf("a call in plaintext: %v", err)
	}
}

// TestWatchEnds: who watches health hears of its end, and the server does not wait for him.
func TestWatchEnds(t *testing.T) {
	h := NewHealth()
	r := serve(t, Options{Health: h, StopTimeout: 1 << 62}, func(context.Context) error { return nil })
	early, stop := listenHealth(t, h)
	watch := func(conn *grpc.ClientConn) healthpb.Health_WatchClient {
		w, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: Liveness})
		if err == nil {
			_, err = w.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	ours, other := watch(dial(t, r.addr)), watch(early)
	r.stop()
	if err := <-r.done; err != nil {
		t.Errorf("Serve = %v", err)
	}
	if _, err := ours.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("who watched: %v", err)
	}
	h.Set(false, Liveness)
	if res, err := other.Recv(); err != nil || res.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("who watches the health listener: %v, %v", res, err)
	}
	stop()
	if _, err := other.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("who watched the health listener: %v", err)
	}
}
