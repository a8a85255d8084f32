//go:build linux

package e2e

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// freePort is an address where nobody listens, for a process that comes and goes.
func freePort(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

// ending is a server that was asked to end.
type ending struct {
	*server
	err  error
	took time.Duration
	done chan struct{}
}

// terminate asks a server to end.
func terminate(t *testing.T, s *server) *ending {
	t.Helper()
	e, begin := &ending{server: s, done: make(chan struct{})}, time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	go func() {
		e.err = s.cmd.Wait()
		e.took = time.Since(begin)
		close(e.done)
	}()
	return e
}

// within waits for the end, which is to be a good one and within the bound.
func (e *ending) within(t *testing.T, bound time.Duration) {
	t.Helper()
	<-e.done
	if e.err != nil || e.took > bound {
		t.Errorf("%v ended with %v after %v:\n%s", e.cmd.Args, e.err, e.took, e.log)
	}
}

// denoisers is an orchestrator over one encoder, one decoder, and denoisers at some addresses.
func denoisers(t *testing.T, addresses ...string) *server {
	t.Helper()
	args := []string{"orchestrator", "--listen", "127.0.0.1:0", "--patience", "1m"}
	for _, kind := range []stage.Kind{stage.KindEncoder, stage.KindDecoder} {
		args = append(args, "--"+kind.String(), startServer(t, command(t, kind.String())).conn.Target())
	}
	return startServer(t, command(t, append(args, "--denoiser", strings.Join(addresses, ","))...))
}

// denoiserAt starts a denoiser that is to end within a time.
func denoiserAt(t *testing.T, address string, drain time.Duration) *server {
	t.Helper()
	return startServer(t, command(t, "denoiser", "--listen", address, "--drain-timeout", drain.String()))
}

// checkpointEvery is the orchestrator's default.
const checkpointEvery = 5

// drawn is a picture that takes longer than the short times to drain of these tests.
func drawn() *triptychv1alpha1.GenerationSpec {
	spec := longSpec()
	spec.Steps = ptr(int32(150))
	return spec
}

// during makes the picture of drawn, does something once when the denoiser has come so far, and wants the same bytes; nothing that
// is behind a checkpoint is done again.
func during(t *testing.T, s *server, want [][]byte, step int32, do func()) []*triptychv1alpha1.GenerateResponse {
	t.Helper()
	done, last := false, int32(0)
	events, err := s.generate(t.Context(), drawn(), func(e *triptychv1alpha1.GenerateResponse) {
		p := e.GetProgress()
		if p.GetStage() != "denoiser" {
			return
		}
		if p.GetStep() <= last-checkpointEvery {
			t.Errorf("behind step %d it went on from step %d", last, p.GetStep())
		}
		last = p.GetStep()
		if !done && p.GetStep() >= step {
			done = true
			do()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if !done {
		t.Fatal("nothing was done")
	}
	same(t, want, images(t, events))
	return events
}

// TestDrainedDenoiser: a denoiser that is told to end in the middle of a picture ends in time, and the picture has the same bytes: on the one that drains if it has the time, else on another one, or on the next at its address.
func TestDrainedDenoiser(t *testing.T) {
	first, second := freePort(t), freePort(t)
	s := denoisers(t, first, second)
	d := denoiserAt(t, first, time.Minute)
	quiet, err := s.generate(t.Context(), drawn(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := images(t, quiet)

	// It has the time.
	var end *ending
	events := during(t, s, want, 12, func() {
		if err := syscall.Kill(d.find(t, program+" runtime denoiser"), syscall.SIGTERM); err != nil { // as some tell all processes
			t.Error(err)
		}
		end = terminate(t, d)
	})
	end.within(t, time.Minute)
	if warned(events, "STAGE_RESTARTED", "") {
		t.Errorf("the work did not end where it was: %v", events)
	}

	// It has not, and another one is there.
	const drain = 2 * time.Second
	d = denoiserAt(t, first, drain)
	var other *server
	events = during(t, s, want, 12, func() {
		other = denoiserAt(t, second, drain)
		end = terminate(t, d)
	})
	end.within(t, drain)
	if !warned(events, "STAGE_RESTARTED", "shuts down and has cut the work") {
		t.Errorf("the work was not cut: %v", events)
	}

	// It has not, and nobody is there until the next one at its address.
	events = during(t, s, want, 12, func() {
		terminate(t, other).within(t, drain)
		denoiserAt(t, second, drain)
	})
	if !warned(events, "STAGE_RESTARTED", "shuts down and has cut the work") {
		t.Errorf("the work was not cut: %v", events)
	}
}

// TestDrainedHung: a service whose runtime hangs ends in time as well, quietly, and the work goes on elsewhere. The second signal
// ends a service at once.
func TestDrainedHung(t *testing.T) {
	first, second := freePort(t), freePort(t)
	s := denoisers(t, first, second)
	const drain = 4 * time.Second
	d := denoiserAt(t, first, drain)
	quiet, err := s.generate(t.Context(), longSpec(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := images(t, quiet)
	var end *ending
	var last int32
	events, err := s.generate(t.Context(), longSpec(), func(e *triptychv1alpha1.GenerateResponse) {
		p := e.GetProgress()
		if p.GetStage() == "denoiser" && p.GetStep() >= 12 && last == 0 {
			last = p.GetStep()
			stop(t, d.find(t, program+" runtime denoiser"))
			denoiserAt(t, second, drain)
			end = terminate(t, d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	same(t, want, images(t, events))
	end.within(t, drain)
	if text := d.log.String(); strings.Contains(text, "ERR") || strings.Contains(text, "died") {
		t.Errorf("the end was not quiet:\n%s", text)
	}

	d = denoiserAt(t, first, time.Minute)
	stop(t, d.find(t, program+" runtime denoiser"))
	end = terminate(t, d)
	draining(t, d)
	for ended := false; !ended; { // the first ones may come with the one before
		if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		select {
		case <-end.done:
			ended = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	var exit *exec.ExitError
	if !errors.As(end.err, &exit) || exit.ExitCode() != 130 || end.took > 20*time.Second {
		t.Errorf("the second signal: %v after %v:\n%s", end.err, end.took, d.log)
	}
}

// draining waits until a service says that it drains.
func draining(t *testing.T, s *server) {
	t.Helper()
	for soon := time.Now().Add(patience); health(t, s, "readiness") == healthpb.HealthCheckResponse_SERVING; {
		if time.Now().After(soon) {
			t.Fatal("it does not drain")
		}
	}
	if got := health(t, s, "liveness"); got != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("liveness while it drains: %v", got)
	}
}

// health is what a server says of a name.
func health(t *testing.T, s *server, name string) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	res, err := healthpb.NewHealthClient(s.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: name}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	return res.GetStatus()
}

// TestDrainedOrchestrator: an orchestrator that is told to end refuses new requests, with a reason and when to try again; those that
// run end well if there is time, and else hear the same. Who watches hears it as well, and the services are given back.
func TestDrainedOrchestrator(t *testing.T) {
	args := []string{"orchestrator", "--listen", "127.0.0.1:0"}
	for _, kind := range stage.Kinds() {
		args = append(args, "--"+kind.String(), startServer(t, command(t, kind.String())).conn.Target())
	}
	var want [][]byte
	for _, c := range []struct {
		drain time.Duration
		code  codes.Code
	}{{time.Minute, codes.OK}, {2 * time.Second, codes.Unavailable}} {
		s := startServer(t, command(t, append(args, "--drain-timeout", c.drain.String())...))
		watch, err := triptychv1alpha1.NewResidencyServiceClient(s.conn).WatchResidency(t.Context(), &triptychv1alpha1.WatchResidencyRequest{})
		if err != nil {
			t.Fatal(err)
		}
		spec := longSpec()
		if c.code != codes.OK {
			spec.Steps = ptr(int32(1000))
		}
		var end *ending
		events, err := s.generate(t.Context(), spec, func(e *triptychv1alpha1.GenerateResponse) {
			if p := e.GetProgress(); end == nil && p.GetStage() == "denoiser" && p.GetStep() >= 12 {
				end = terminate(t, s)
				for soon := time.Now().Add(patience); ; { // the signal may not have been heard yet
					_, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Prompt: "x", Steps: ptr(int32(-1))}, nil)
					if status.Code(err) != codes.InvalidArgument || time.Now().After(soon) {
						shutDown(t, "a new request", err)
						return
					}
				}
			}
		})
		if status.Code(err) != c.code {
			t.Fatalf("with %v to drain, the request that ran: %v", c.drain, err)
		}
		if c.code == codes.OK {
			want = images(t, events)
		} else {
			shutDown(t, "the request that ran", err)
		}
		for err = nil; err == nil; {
			_, err = watch.Recv()
		}
		shutDown(t, "who watched", err)
		end.within(t, c.drain)
	}
	s := startServer(t, command(t, args...))
	events, err := s.generate(t.Context(), longSpec(), nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, want, images(t, events))
	if text := s.log.String(); strings.Contains(text, "another orchestrator") {
		t.Errorf("the services were not given back:\n%s", text)
	}
}

// shutDown wants the error of an orchestrator that shuts down.
func shutDown(t *testing.T, what string, err error) {
	t.Helper()
	retry := false
	for _, d := range status.Convert(err).Details() {
		if d, ok := d.(*errdetails.RetryInfo); ok {
			retry = d.GetRetryDelay().AsDuration() > 0
		}
	}
	if info := errorInfo(err); status.Code(err) != codes.Unavailable || info.GetReason() != "SHUTTING_DOWN" || !retry {
		t.Errorf("%s: %v", what, err)
	}
}

// TestRolledServices: replicas of all stages are rolled one after the other, under callers and in a budget that has stages loaded again
// and again, and no request fails nor gives other bytes.
func TestRolledServices(t *testing.T) {
	const drain = 3 * time.Second
	args := []string{"orchestrator", "--listen", "127.0.0.1:0"}
	type replica struct {
		kind, address string
		*server
	}
	var replicas []*replica
	start := func(r *replica) {
		t.Helper()
		r.server = startServer(t, command(t, r.kind, "--listen", r.address, "--memory-budget", "30MB", "--drain-timeout", drain.String()))
	}
	for _, kind := range stage.Kinds() {
		pair := []string{freePort(t), freePort(t)}
		args = append(args, "--"+kind.String(), strings.Join(pair, ","))
		for _, address := range pair {
			r := &replica{kind: kind.String(), address: address}
			start(r)
			replicas = append(replicas, r)
		}
	}
	s := startServer(t, command(t, args...))
	spec := func(seed int) *triptychv1alpha1.GenerationSpec {
		return &triptychv1alpha1.GenerationSpec{Prompt: "owl", Seed: ptr(uint64(seed)), Steps: ptr(int32(12)), Sampler: "euler_a"}
	}
	const seeds = 3
	var want [seeds][][]byte
	for seed := range seeds {
		events, err := s.generate(t.Context(), spec(seed), nil)
		if err != nil {
			t.Fatal(err)
		}
		want[seed] = images(t, events)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var callers sync.WaitGroup
	made := make(chan struct{})
	for seed := range seeds {
		callers.Go(func() {
			for ctx.Err() == nil {
				events, err := s.generate(t.Context(), spec(seed), nil)
				if err != nil {
					t.Errorf("a request: %v", err)
					return
				}
				same(t, want[seed], images(t, events))
				select {
				case made <- struct{}{}:
				case <-ctx.Done():
				}
			}
		})
	}
	for _, r := range replicas {
		terminate(t, r.server).within(t, drain)
		start(r)
		for range 2 * seeds { // so that whoever had one that is gone has been served
			select {
			case <-made:
			case <-time.After(patience):
				t.Fatal("no picture is made any more")
			}
		}
	}
	cancel()
	callers.Wait()
}
