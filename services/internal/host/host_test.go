package host

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageplugin"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func TestContract(t *testing.T) {
	stagetest.ContractOfFakes(t, func(t *testing.T, kind stage.Kind) (stage.Stage, *stagetest.Script) {
		return open(t, options(kind, warm), realTime()), nil
	})
}

func TestKillDuringLoad(t *testing.T) {
	h := open(t, options(stage.KindEncoder, once(t, "hold load 3")...), realTime())
	wantFresh(t, h, 1)
	err := h.Load(t.Context(), loading(h), func(loaded, total int64) {
		if 2*loaded == total {
			kill(t, h)
		}
	})
	wantDied(t, h, err)
	wantFresh(t, h, 2)
	if err := h.Load(t.Context(), loading(h), nil); err != nil {
		t.Errorf("Load into the next child: %v", err)
	}
}

// TestKillLosesWarm: what was warm goes with the child, as what was resident.
func TestKillLosesWarm(t *testing.T) {
	h := open(t, options(stage.KindEncoder, warm), realTime())
	load(t, h)
	if e, err := h.Evict(t.Context(), stage.EvictRequest{Component: component(h), Keep: true}); err != nil || e.WarmBytes == 0 {
		t.Fatalf("Evict that keeps = %+v, %v", e, err)
	}
	kill(t, h)
	wantFresh(t, h, 2)
	if e, err := h.Evict(t.Context(), stage.EvictRequest{Component: component(h), Keep: true}); err != nil || e != (stage.Evicted{}) {
		t.Errorf("Evict in the next child = %+v, %v", e, err)
	}
}

// TestEndedGeneration: what is asked of a child that has ended is not done by the next one, and is not waited for.
func TestEndedGeneration(t *testing.T) {
	clock := newFakeTime()
	h := open(t, options(stage.KindEncoder), clock.clock())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	calls := func(generation uint64) map[string]error {
		_, evict := h.Evict(ctx, stage.EvictRequest{Component: component(h), Generation: generation})
		return map[string]error{
			"Evict": evict,
			"Load":  h.Load(ctx, stage.LoadRequest{Component: component(h), Generation: generation}, nil),
		}
	}
	refused := func() {
		t.Helper()
		for _, err := range calls(1) {
			wantDied(t, h, err)
		}
	}
	kill(t, h)
	restart := clock.expect(t, 0)
	refused() // before the next child is there
	close(restart.end)
	wantFresh(t, h, 2)
	refused()
	wantFresh(t, h, 2)
	for name, err := range calls(2) {
		if err != nil {
			t.Errorf("%s for the child that is there: %v", name, err)
		}
	}
}

// TestNumbers: the generations of a host that follows another one are later.
func TestNumbers(t *testing.T) {
	var last uint64
	for range 3 {
		h, err := New(t.Context(), options(stage.KindEncoder))
		if err != nil {
			t.Fatal(err)
		}
		info, err := h.Info(t.Context())
		h.Close()
		if err != nil || info.Generation <= last {
			t.Errorf("generation %d after %d: %v", info.Generation, last, err)
		}
		last = info.Generation + 1 // of the child that would have come next
	}
}

func TestKillDuringEncode(t *testing.T) {
	o := options(stage.KindEncoder, once(t, "hold encode 2")...)
	begun := watchLog(&o, "turn encode")
	e := open(t, o, realTime())
	load(t, e)
	result := make(chan error, 1)
	go func() {
		result <- take(t.Context(), e)
	}()
	await(t, "Encode to begin", begun)
	kill(t, e)
	wantDied(t, e, await(t, "Encode to end", result))
	err := take(t.Context(), e)
	if stage.ReasonOf(err) != stage.StageEvicted {
		t.Errorf("Encode in the next child: %v", err)
	}
	wantFresh(t, e, 2)
}

// TestKillDuringDenoise resumes in the next child and gets the latent of a run without a death.
func TestKillDuringDenoise(t *testing.T) {
	d := open(t, options(stage.KindDenoiser, once(t, "hold denoise 4")...), realTime())
	load(t, d)
	req := stagetest.Request(stage.KindDenoiser)
	req.CheckpointEveryNSteps = 1
	var last stage.Checkpoint
	_, err := d.Work(t.Context(), req, stage.Observer{Checkpoint: func(c stage.Checkpoint) {
		last = c
		if c.Step == 3 {
			kill(t, d)
		}
	}})
	wantDied(t, d, err)
	wantFresh(t, d, 2)
	load(t, d)
	resumed := req
	resumed.Resume = &last
	got, err := d.Work(t.Context(), resumed, stage.Observer{})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := d.Work(t.Context(), req, stage.Observer{})
	if err != nil {
		t.Fatal(err)
	}
	if last.Step != 3 || !bytes.Equal(got.Values[0].Tensor.Data, whole.Values[0].Tensor.Data) {
		t.Errorf("resumed at step %d, the latents differ", last.Step)
	}
}

// TestApplicationError is about an error that must not be taken for a death, nor cause one.
func TestApplicationError(t *testing.T) {
	e := open(t, options(stage.KindEncoder, scriptKey+"=fail encode 1 ENGINE_FAULT"), realTime())
	load(t, e)
	pid := e.PID()
	if err := take(t.Context(), e); stage.ReasonOf(err) != stage.EngineFault {
		t.Errorf("Encode = %v", err)
	}
	if info, err := e.Info(t.Context()); err != nil || info.Generation != 1 || len(info.Resident) != 1 || e.PID() != pid {
		t.Errorf("after an error of the stage: %+v, %v", info, err)
	}
}

func TestPanicInChild(t *testing.T) {
	e := open(t, options(stage.KindEncoder, scriptKey+"=panic encode 1"), realTime())
	load(t, e)
	err := take(t.Context(), e)
	wantDied(t, e, err)
	wantFresh(t, e, 2)
}

// TestCallsWait makes calls while the child is being started again.
func TestCallsWait(t *testing.T) {
	clock := newFakeTime()
	h := open(t, options(stage.KindDecoder), clock.clock())
	kill(t, h)
	restart := clock.expect(t, 0)
	if pid := h.PID(); pid != 0 {
		t.Errorf("PID without a child = %d", pid)
	}
	plan := stage.PlanRequest{Turn: stagetest.Request(stage.KindDecoder).Turn, Components: []string{component(h)}}
	for _, call := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := h.Plan(ctx, plan); return err },
		func(ctx context.Context) error { _, err := h.Info(ctx); return err },
		func(ctx context.Context) error { return h.Load(ctx, loading(h), nil) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call that waited for its deadline: %v", err)
		}
		cancel()
	}
	result := make(chan error, 2)
	go func() { _, err := h.Plan(t.Context(), plan); result <- err }()
	go func() { result <- h.Load(t.Context(), loading(h), nil) }()
	close(restart.end)
	for range 2 {
		if err := await(t, "the calls", result); err != nil {
			t.Errorf("a call that waited for the next child: %v", err)
		}
	}
}

// TestCrashLoop lets every child die at its first load.
func TestCrashLoop(t *testing.T) {
	clock := newFakeTime()
	h := open(t, options(stage.KindEncoder, scriptKey+"=exit load 1 9"), clock.clock())
	die := func(delay time.Duration) {
		t.Helper()
		wantDied(t, h, h.Load(t.Context(), loading(h), nil))
		close(clock.expect(t, delay).end)
	}
	die(0)
	die(250 * time.Millisecond)
	die(500 * time.Millisecond)
	die(time.Second)
	wantFresh(t, h, 5)
	clock.advance(oldAge)
	die(0)
	die(250 * time.Millisecond)
	wantFresh(t, h, 7)
}

func TestPace(t *testing.T) {
	var p pace
	for i, want := range []time.Duration{0, 250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000} {
		if got := p.afterLife(time.Second); got != want*time.Millisecond {
			t.Errorf("after %d deaths: %v, expected %v ms", i+1, got, int64(want))
		}
	}
}

// TestNoRestart is about a runtime that no longer starts.
func TestNoRestart(t *testing.T) {
	clock := newFakeTime()
	o := options(stage.KindEncoder, append(once(t, ""), thenKey+"=refuse")...)
	h := open(t, o, clock.clock())
	kill(t, h)
	close(clock.expect(t, 0).end)
	close(clock.expect(t, 250*time.Millisecond).end)
	clock.expect(t, 500*time.Millisecond)
	waiting := make(chan error, 1)
	go func() { waiting <- h.Load(t.Context(), loading(h), nil) }()
	h.Close()
	if err := await(t, "a call that waits at Close", waiting); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("a call that waits at Close: %v", err)
	}
}

func TestFirstStartFails(t *testing.T) {
	o := options(stage.KindEncoder)
	o.Command = []string{"/nowhere/triptych"}
	h, err := New(t.Context(), o)
	var failure *stageplugin.StartError
	if h != nil || !errors.As(err, &failure) {
		t.Errorf("New = %v, %v", h, err)
	}
}

func TestClose(t *testing.T) {
	o := options(stage.KindEncoder, scriptKey+"=hold encode 1")
	begun := watchLog(&o, "turn encode")
	e := open(t, o, realTime())
	load(t, e)
	pid := e.PID()
	result := make(chan error, 1)
	go func() {
		result <- take(t.Context(), e)
	}()
	await(t, "Encode to begin", begun)
	var all sync.WaitGroup
	for range 3 {
		all.Go(e.Close)
	}
	all.Wait()
	wantDied(t, e, await(t, "Encode to end", result))
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("Close left the child %d: %v", pid, err)
	}
	if _, err := e.Info(t.Context()); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("Info after Close: %v", err)
	}
	if err := take(t.Context(), e); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("Encode after Close: %v", err)
	}
}

// TestBrokenLine is about a child that lives and whose socket does not answer any more: the call
// ends and so does the child.
func TestBrokenLine(t *testing.T) {
	h := open(t, options(stage.KindEncoder), realTime())
	h.mu.Lock()
	g := h.current
	h.mu.Unlock()
	lost := &stage.Error{Reason: stage.StageUnreachable, Message: "cannot be reached", Cause: errors.New("grpc's")}
	wantDied(t, h, h.judge(t.Context(), g, lost))
	wantFresh(t, h, 2)
}

// TestManyDeaths kills children while calls of all kinds go on.
func TestManyDeaths(t *testing.T) {
	e := open(t, options(stage.KindEncoder), clock{now: time.Now, after: func(time.Duration) <-chan time.Time {
		return time.After(0)
	}})
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				_, infoErr := e.Info(ctx)
				loadErr := e.Load(ctx, loading(e), nil)
				encodeErr := take(ctx, e)
				if infoErr != nil && ctx.Err() == nil {
					t.Errorf("Info: %v", infoErr)
				}
				for _, err := range []error{loadErr, encodeErr} {
					switch stage.ReasonOf(err) {
					case stage.RuntimeDied, stage.StageEvicted:
					default:
						if err != nil && ctx.Err() == nil {
							t.Errorf("a call around a death: %v", err)
						}
					}
				}
			}
		})
	}
	const deaths = 5
	for n := range uint64(deaths) {
		kill(t, e)
		info, err := e.Info(t.Context())
		if err != nil || info.Generation != n+2 {
			t.Fatalf("after %d deaths: generation %d, %v", n+1, info.Generation, err)
		}
	}
	stop()
	all.Wait()
}

// TestMemory reads the child's memory by its PID, as tests of real models do.
func TestMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	h := open(t, options(stage.KindEncoder), realTime())
	statm, err := os.ReadFile("/proc/" + strconv.Itoa(h.PID()) + "/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	if err != nil || pages*os.Getpagesize() < 1<<20 {
		t.Errorf("resident pages of the child: %d, %v", pages, err)
	}
}
