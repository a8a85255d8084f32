//go:build linux

package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/internal/deviceclaim"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// observer watches a device without a budget of its own.
func observer(t *testing.T, dir string) *deviceclaim.Claim {
	t.Helper()
	l, err := deviceclaim.Open(dir, "cpu:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func held(l *deviceclaim.Claim) int64 { return l.Observe("", stage.Want{}).ForeignBytes }

// sample looks again and again until stopped, and gives the most that was ever seen.
func sample(look func() int64) (stop func() int64) {
	ctx, cancel := context.WithCancel(context.Background())
	most := make(chan int64)
	go func() {
		var n int64
		for ; ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
			n = max(n, look())
		}
		most <- n
	}()
	return func() int64 { cancel(); return <-most }
}

// TestTwoOrchestrators: two stacks that know nothing of each other share a budget that one of them would fill. Both make all
// their pictures, and together they never hold more than it.
func TestTwoOrchestrators(t *testing.T) {
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox on a blue background", Seed: ptr(uint64(42)), Steps: ptr(int32(4))}
	largest, _, want := footprints(t, spec)
	budget := largest * 12 / 10
	dir := t.TempDir()
	args := []string{"--memory-budget", strconv.FormatInt(budget, 10), "--device-claims", dir}
	servers := []*server{up(t, args...), up(t, args...)}
	watch := observer(t, dir)
	reserved := sample(func() int64 { return held(watch) })
	var wg sync.WaitGroup
	var mu sync.Mutex
	waits := make([]int, len(servers))
	for i, s := range servers {
		for range 2 {
			wg.Go(func() {
				events, err := s.generate(t.Context(), spec, nil)
				if err != nil {
					t.Errorf("orchestrator %d: %v\n%s", i, err, s.log)
					return
				}
				same(t, want, images(t, events))
				mu.Lock()
				defer mu.Unlock()
				for _, e := range events {
					if r := e.GetResidency(); strings.Contains(r.GetReason(), "other processes") {
						waits[i]++
					}
				}
			})
		}
	}
	wg.Wait()
	most := reserved()
	t.Logf("budget %d, largest stage %d, most reserved at once %d; decisions about others: %v", budget, largest, most, waits)
	if most > budget || most == 0 {
		t.Errorf("%d bytes were reserved at once of a budget of %d", most, budget)
	}
	if waits[0]+waits[1] == 0 {
		t.Error("nobody waited for the other")
	}
}

// TestKilledStack: a stack dies with all its processes while it holds the device, and another one goes on.
func TestKilledStack(t *testing.T) {
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "owl", Seed: ptr(uint64(3)), Steps: ptr(int32(4))}
	largest, _, want := footprints(t, spec)
	args := []string{"--memory-budget", strconv.FormatInt(largest*11/10, 10), "--device-claims", t.TempDir()}
	doomed, other := up(t, args...), up(t, args...)
	long := &triptychv1alpha1.GenerationSpec{Prompt: "owl", Seed: ptr(uint64(3)), Steps: ptr(int32(1000)), Sampler: "euler"}
	working, ended := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		_, err := doomed.generate(t.Context(), long, func(e *triptychv1alpha1.GenerateResponse) {
			if p := e.GetProgress(); p.GetStage() == "denoiser" && p.GetStep() > 0 {
				once.Do(func() { close(working) })
			}
		})
		ended <- err
	}()
	select {
	case <-working:
	case err := <-ended:
		t.Fatalf("the long request: %v", err)
	}
	waiting := make(chan struct{})
	var waits sync.Once
	go func() {
		<-waiting
		family := descendants(t, doomed.cmd.Process.Pid)
		_ = doomed.cmd.Process.Kill()
		for pid := range family {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = doomed.cmd.Wait()
	}()
	var killed time.Time
	events, err := other.generate(t.Context(), spec, func(e *triptychv1alpha1.GenerateResponse) {
		if r := e.GetResidency(); r.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_WAIT && strings.Contains(r.GetReason(), "other processes") {
			waits.Do(func() { killed = time.Now(); close(waiting) })
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	same(t, want, images(t, events))
	t.Logf("the picture was there %v after the others were killed", time.Since(killed))
	<-ended
}

// TestServicesOfAnother: an orchestrator over the services of another one is told so, and gets them when that one is silent.
func TestServicesOfAnother(t *testing.T) {
	start := func(kind string) string {
		return startServer(t, command(t, kind, "--log-level", "info")).conn.Target()
	}
	args := []string{"orchestrator", "--listen", "127.0.0.1:0", "--log-level", "info", "--patience", "2s", "--encoder", start("encoder"), "--denoiser", start("denoiser"), "--decoder", start("decoder")}
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "cat", Seed: ptr(uint64(1)), Steps: ptr(int32(2))}
	first := command(t, args...)
	owner := startServer(t, first)
	if _, err := owner.generate(t.Context(), spec, nil); err != nil {
		t.Fatal(err)
	}
	other := startServer(t, command(t, args...))
	_, err := other.generate(t.Context(), spec, nil)
	if info := errorInfo(err); status.Code(err) != codes.Unavailable || info.GetReason() != "STAGE_OWNED" {
		t.Fatalf("got %v with %v, want UNAVAILABLE because of the owner", err, info)
	}
	if err := first.Process.Signal(syscall.SIGSTOP); err != nil { // silent, and its connections stand
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Process.Signal(syscall.SIGCONT) })
	begin := time.Now()
	for {
		_, err := other.generate(t.Context(), spec, nil)
		if err == nil {
			break
		}
		if errorInfo(err).GetReason() != "STAGE_OWNED" || time.Since(begin) > 30*time.Second {
			t.Fatalf("%v after the owner fell silent: %v", time.Since(begin), err)
		}
	}
	t.Logf("the services were the other's %v after the owner fell silent", time.Since(begin))
}

// TestUnsharedClaim: services that are told to be one memory and given two claim directories do not work together: requests, the
// list of models and the log say which two, and by what flag it comes right. Then it does.
func TestUnsharedClaim(t *testing.T) {
	right, wrong := t.TempDir(), t.TempDir()
	start := func(kind, listen, dir string) (*exec.Cmd, string) {
		cmd := command(t, kind, "--listen", listen, "--memory-budget", "64MiB", "--device-claims", dir, "--log-level", "info")
		cmd.Env = append(cmd.Env, "NODE_NAME=card-1")
		return cmd, startServer(t, cmd).conn.Target()
	}
	_, encoder := start("encoder", "127.0.0.1:0", right)
	denoising, denoiser := start("denoiser", "127.0.0.1:0", wrong)
	_, decoder := start("decoder", "127.0.0.1:0", right)
	s := startServer(t, command(t, "orchestrator", "--listen", "127.0.0.1:0", "--log-level", "info", "--patience", "2s", "--encoder", encoder, "--denoiser", denoiser, "--decoder", decoder))
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "cat", Seed: ptr(uint64(1)), Steps: ptr(int32(2))}
	if _, err := s.generate(t.Context(), spec, nil); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `cpu:0 of host "card-1"`) || !strings.Contains(err.Error(), "--device-claims") {
		t.Errorf("a request: %v", err)
	}
	problems := ""
	for _, service := range s.services(t) {
		if p := service.GetProblem(); p != "" {
			problems += service.GetAddress() + ": " + p + "\n"
		}
	}
	if !strings.Contains(problems, "--device-claims") || !strings.Contains(problems, denoiser) || !strings.Contains(problems, encoder) && !strings.Contains(problems, decoder) {
		t.Errorf("the list of models says %q", problems)
	}
	if err := errors.Join(denoising.Process.Signal(os.Interrupt), denoising.Wait()); err != nil {
		t.Fatal(err)
	}
	start("denoiser", denoiser, right)
	for begin := time.Now(); ; {
		_, err := s.generate(t.Context(), spec, nil)
		if err == nil {
			break
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("with one directory for all: %v", err)
		}
	}
}
