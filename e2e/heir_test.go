//go:build linux

package e2e

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// inherits bounds the time from an owner's SIGTERM to the heir's readiness and first answer.
const inherits = 3 * time.Second

// behind is a client by one connection, as by the virtual address of a service: it goes to the server that is ready when it is made.
func behind(t *testing.T, ready *atomic.Pointer[server]) *server {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///triptych", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", ready.Load().conn.Target())
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &server{conn: conn, client: triptychv1alpha1.NewGenerationServiceClient(conn)}
}

// TestHeir: an orchestrator that stands by takes requests as soon as the owner is told to end, from callers who have been at the
// owner as well. They wait while the owner finishes its work, and are drawn then: nothing fails, and every picture has the same bytes.
func TestHeir(t *testing.T) {
	args := []string{"orchestrator", "--listen", "127.0.0.1:0", "--drain-timeout", "1m"}
	for _, kind := range stage.Kinds() {
		args = append(args, "--"+kind.String(), startServer(t, command(t, kind.String(), "--listen", "127.0.0.1:0")).conn.Target())
	}
	start := func() *server { return startServer(t, command(t, args...)) }
	long := longSpec()
	long.ImageCount = ptr(int32(4))
	a := start()
	a.soon(t, patience)
	want := a.picture(t)
	quiet, err := a.generate(t.Context(), long, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := start()
	b.standsBy(t)
	var serves atomic.Pointer[server]
	serves.Store(a)
	caller := behind(t, &serves)

	type outcome struct {
		events []*triptychv1alpha1.GenerateResponse
		err    error
	}
	denoises, worked := make(chan struct{}), make(chan outcome, 1)
	go func() {
		begun := false
		events, err := caller.generate(t.Context(), long, func(e *triptychv1alpha1.GenerateResponse) {
			if p := e.GetProgress(); !begun && p.GetStage() == stage.KindDenoiser.String() && p.GetStep() >= 3 {
				begun = true
				close(denoises)
			}
		})
		worked <- outcome{events, err}
	}()
	<-denoises
	told := time.Now()
	end := terminate(t, a)
	b.soon(t, inherits)
	serves.Store(b)
	ready := time.Since(told)
	queued, drawn := make(chan string, 1), make(chan outcome, 1)
	go func() {
		events, err := caller.generate(t.Context(), fox(3), func(e *triptychv1alpha1.GenerateResponse) {
			if why := e.GetQueued().GetReason(); why != "" {
				select {
				case queued <- why:
				default:
				}
			}
		})
		drawn <- outcome{events, err}
	}()
	select {
	case why := <-queued:
		if !strings.Contains(why, "the orchestrator before this one finishes its work") {
			t.Errorf("the request waits because %s", why)
		}
	case early := <-drawn:
		t.Fatalf("the request did not wait: %v\n%s", early.err, b.log)
	}
	waits := time.Since(told)
	select {
	case early := <-worked:
		t.Fatalf("the owner's work ended before the heir had a request: %v", early.err)
	default:
	}

	was := <-worked
	if was.err != nil {
		t.Fatalf("the owner's work: %v\n%s", was.err, a.log)
	}
	same(t, images(t, quiet), images(t, was.events))
	end.within(t, time.Minute)
	left := time.Now()
	heirs := <-drawn
	if heirs.err != nil {
		t.Fatalf("the heir's request: %v\n%s", heirs.err, b.log)
	}
	t.Logf("the heir was ready within %v of the signal, and had a request waiting within %v; the owner ended within %v, the heir's picture was there %v later",
		ready, waits, end.took, time.Since(left))
	same(t, [][]byte{want}, images(t, heirs.events))
	accepted := func(e *triptychv1alpha1.GenerateResponse) bool { return e.GetAccepted() != nil }
	if n := len(heirs.events); slices.IndexFunc(heirs.events, accepted) < 0 || heirs.events[n-1].GetCompleted() == nil {
		t.Errorf("the heir's request ended behind %d events", n)
	}
	if strings.Contains(a.log.String(), "standby") {
		t.Errorf("the owner did not stay the owner:\n%s", a.log)
	}
	b.end(t, syscall.SIGTERM)
}
