package residency

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/triptych-serving/triptych/stage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a Keeper with one fake stage of each kind on a device. Scratch is 10 bytes everywhere.
type house struct {
	*Keeper
	t      *testing.T
	memory *memory
	stages map[stage.Kind]*fake
}

// weights of the fakes, in bytes.
var weights = map[stage.Kind]int64{stage.KindEncoder: 40, stage.KindDenoiser: 100, stage.KindDecoder: 30}

func newHouse(t *testing.T, budget int64, o Options) *house {
	h := &house{Keeper: New(o), t: t, memory: &memory{t: t, budget: budget}, stages: map[stage.Kind]*fake{}}
	for _, k := range stage.Kinds() {
		h.stages[k] = newFake(h.memory, weights[k])
		h.join(k)
	}
	t.Cleanup(h.Close)
	return h
}

func (h *house) join(k stage.Kind) {
	h.Join(StageID(k.String()), k, Device{"h", "cpu", h.memory.budget}, h.stages[k],
		stage.Info{Components: []stage.Component{{Name: named(k, "m")}, {Name: named(k, "n")}, {Name: named(k, "broken"), Problem: "it is"}}}, h.Now())
}

func (h *house) request(k stage.Kind) AcquireRequest {
	return AcquireRequest{Job: "job", Need: single(k, "m", weights[k], 10)}
}

func (h *house) acquire(k stage.Kind) *Lease {
	h.t.Helper()
	lease, err := h.Acquire(h.t.Context(), h.request(k))
	if err != nil {
		h.t.Fatal(err)
	}
	return lease
}

// pending is an Acquire that has not returned.
type pending struct {
	done  chan struct{}
	lease *Lease
	err   error
}

func (h *house) start(ctx context.Context, r AcquireRequest) *pending {
	p := &pending{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.lease, p.err = h.Acquire(ctx, r)
	}()
	return p
}

func (h *house) used() (bytes int64) {
	for _, d := range h.Snapshot().Devices {
		bytes += d.UsedBytes
	}
	return bytes
}

// TestObserver: all that led to a grant is told before Acquire returns, and the rest before Release
// does.
func TestObserver(t *testing.T) {
	h := newHouse(t, 120, Options{})
	h.acquire(stage.KindDenoiser).Release()

	var told []string
	r := h.request(stage.KindEncoder)
	r.Observer = Observer{
		Event:    func(e Event) { told = append(told, fmt.Sprint(e.Action, " ", e.Bytes, " of ", e.Kind)) },
		Position: func(ahead int) { told = append(told, fmt.Sprint("position ", ahead)) },
		Loading:  func(loaded, total int64) { told = append(told, fmt.Sprint("loading ", loaded, " of ", total)) },
	}
	lease, err := h.Acquire(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if lease.Stage != "encoder" {
		t.Errorf("granted at %q", lease.Stage)
	}
	told = slices.DeleteFunc(told, func(s string) bool { return s == "loading 0 of 40" }) // replaced, if not told in time
	want := []string{"evict 100 of denoiser", "release 100 of denoiser", "reserve 50 of encoder", "load 40 of encoder", "loading 40 of 40", "loaded 40 of encoder", "grant 50 of encoder"}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
	lease.Release()
	if last := told[len(told)-1]; last != "release 10 of encoder" {
		t.Errorf("the last told is %q", last)
	}
	lease.Release()
	if used := h.used(); used != 40 {
		t.Errorf("%d bytes are used, want 40", used)
	}
}

// TestSlowObserver: an observer that does not return holds up its own request only, and hears the
// newest position.
func TestSlowObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 1000, Options{})
		first := h.acquire(stage.KindEncoder)
		a := h.start(t.Context(), h.request(stage.KindEncoder))
		synctest.Wait()
		block := make(chan struct{})
		var positions []int
		r := h.request(stage.KindEncoder)
		r.Observer.Position = func(ahead int) {
			positions = append(positions, ahead)
			<-block
		}
		b := h.start(t.Context(), r)
		synctest.Wait()
		first.Release()
		<-a.done
		a.lease.Release()
		c := h.start(t.Context(), h.request(stage.KindDecoder))
		<-c.done
		synctest.Wait()
		select {
		case <-b.done:
			t.Error("Acquire returned before its observer did")
		default:
		}
		close(block)
		<-b.done
		if want := []int{2, 1}; !slices.Equal(positions, want) {
			t.Errorf("positions %v, want %v", positions, want)
		}
		b.lease.Release()
		c.lease.Release()
	})
}

// TestSinkDrops: a sink that does not return loses events beyond the bound, and the loss is counted.
func TestSinkDrops(t *testing.T) {
	block := make(chan struct{})
	heard := 0
	h := newHouse(t, 1000, Options{Sink: func(Event) { <-block; heard++ }})
	const turns = maxQueued
	for range turns {
		h.acquire(stage.KindEncoder).Release()
	}
	dropped := h.Snapshot().DroppedEvents
	close(block)
	h.Close()
	if events := 3*turns + 2; dropped == 0 || heard+dropped != events {
		t.Errorf("%d events heard and %d dropped, want %d", heard, dropped, events)
	}
}

// TestCancelWhileLoading: the load is stopped and what it left is evicted before the bytes are free.
func TestCancelWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 120, Options{})
		denoiser := h.stages[stage.KindDenoiser]
		denoiser.loads, denoiser.evictions = make(chan chan error), make(chan chan error)
		ctx, cancel := context.WithCancel(t.Context())
		p := h.start(ctx, h.request(stage.KindDenoiser))
		<-denoiser.loads
		cancel()
		<-p.done
		if !errors.Is(p.err, context.Canceled) {
			t.Errorf("the error is %v", p.err)
		}
		eviction := <-denoiser.evictions
		if used := h.used(); used != 100 {
			t.Errorf("%d bytes are used while they are evicted, want 100", used)
		}
		eviction <- nil
		synctest.Wait()
		if used := h.used(); used != 0 {
			t.Errorf("%d bytes are used, want 0", used)
		}
		if want := []string{"load m/unet", "load m/unet: context canceled", "evict m/unet"}; !slices.Equal(denoiser.calls, want) {
			t.Errorf("calls %q, want %q", denoiser.calls, want)
		}
	})
}

// TestWaitEnds: how Acquire ends when nothing is granted.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 120, Options{})
		lease := h.acquire(stage.KindDenoiser)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := h.Acquire(ctx, h.request(stage.KindEncoder)); err != context.DeadlineExceeded {
			t.Errorf("in line: %v", err)
		}
		h.Leave("encoder")
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := h.Acquire(ctx, h.request(stage.KindEncoder))
		if stage.ReasonOf(err) != stage.StageUnreachable || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a stage: %v", err)
		}
		why := stage.Errorf(stage.StageDraining, "because")
		caused, stop := context.WithCancelCause(t.Context())
		stop(why)
		if _, err := h.Acquire(caused, h.request(stage.KindEncoder)); err != why {
			t.Errorf("with a cause: %v", err)
		}
		lease.Release()

		big := h.request(stage.KindDenoiser)
		big.Need = single(stage.KindDenoiser, "m", 100, 21)
		_, err = h.Acquire(t.Context(), big)
		if stage.ReasonOf(err) != stage.ModelDoesNotFit {
			t.Errorf("too big: %v", err)
		}
		if d, check := h.Check(big.Need); check == nil || check.Error() != err.Error() || d.BudgetBytes == 0 {
			t.Errorf("Check says %v, Acquire %v", check, err)
		}
		if _, err := h.Check(h.request(stage.KindDenoiser).Need); err != nil {
			t.Errorf("Check says %v of what fits", err)
		}

		denoiser := h.stages[stage.KindDenoiser]
		denoiser.loads = make(chan chan error)
		other := h.request(stage.KindDenoiser)
		other.Need = single(stage.KindDenoiser, "n", 100, 10)
		p := h.start(t.Context(), other)
		broken := stage.Errorf(stage.ModelInvalid, "broken")
		(<-denoiser.loads) <- broken
		if <-p.done; p.err != broken {
			t.Errorf("a failed load: %v", p.err)
		}
	})
}

// TestTryAcquire never waits for others and evicts nothing.
func TestTryAcquire(t *testing.T) {
	h := newHouse(t, 150, Options{})
	if _, ok := h.TryAcquire(t.Context(), h.request(stage.KindDecoder)); !ok {
		t.Fatal("the decoder could have been loaded")
	} else if _, ok := h.TryAcquire(t.Context(), h.request(stage.KindDecoder)); ok {
		t.Error("the decoder is at work")
	} else if _, ok := h.TryAcquire(t.Context(), h.request(stage.KindDenoiser)); !ok {
		t.Error("the denoiser fits beside the decoder")
	} else if _, ok := h.TryAcquire(t.Context(), h.request(stage.KindEncoder)); ok {
		t.Error("the encoder has no room")
	}
}

// TestLost: what a lost stage held is free at once, its leases end, and a load given up ends before
// the next begins.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 200, Options{})
		denoiser := h.stages[stage.KindDenoiser]
		lease := h.acquire(stage.KindDenoiser)
		denoiser.resident["m/unet"] = false
		denoiser.add(-denoiser.weights)
		lease.Lost()
		h.tell(seen{"denoiser", 1}) // the same news
		if used := h.used(); used != 0 {
			t.Errorf("%d bytes are used", used)
		}
		lease.Release()

		denoiser.loads = make(chan chan error)
		p := h.start(t.Context(), h.request(stage.KindDenoiser))
		<-denoiser.loads
		h.tell(seen{"denoiser", 2})
		h.tell(seen{"denoiser", 2})
		(<-denoiser.loads) <- nil
		<-p.done
		if p.err != nil {
			t.Fatal(p.err)
		}
		if diff := cmp.Diff([]uint64{0, 1, 2}, denoiser.asked); diff != "" {
			t.Errorf("runtimes were asked by other numbers: %s", diff)
		}
		h.Leave("denoiser")
		p.lease.Lost()
		p.lease.Release()
		if used := h.used(); used != 0 {
			t.Errorf("%d bytes are used", used)
		}
		want := []string{"load m/unet", "load m/unet", "load m/unet: context canceled", "load m/unet"}
		if diff := cmp.Diff(want, denoiser.calls); diff != "" {
			t.Error(diff)
		}
	})
}

// TestClose ends waiting, loading and evicting, and every goroutine (see TestMain).
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard := 0
		h := newHouse(t, 139, Options{Sink: func(Event) { heard++ }}) // the decoder has to go
		for _, f := range h.stages {
			f.evictions = make(chan chan error)
		}
		h.stages[stage.KindEncoder].loads = make(chan chan error)
		lease := h.acquire(stage.KindDecoder)
		lease.Release()
		r := h.request(stage.KindDenoiser)
		r.Observer.Event = func(Event) {}
		var waiting []*pending
		for range 3 {
			waiting = append(waiting, h.start(t.Context(), r), h.start(t.Context(), h.request(stage.KindEncoder)))
		}
		synctest.Wait()
		h.Close()
		for _, p := range waiting {
			if <-p.done; stage.ReasonOf(p.err) != stage.StageDraining {
				t.Errorf("the error is %v", p.err)
			}
		}
		if _, err := h.Acquire(t.Context(), r); stage.ReasonOf(err) != stage.StageDraining {
			t.Errorf("after Close: %v", err)
		}
		lease.Release()
		lease.Lost()
		h.Announce("job", nil)
		h.join(stage.KindEncoder)
		if s := h.Snapshot(); len(s.Devices) > 0 {
			t.Errorf("after Close: %v", s)
		}
		if heard == 0 {
			t.Error("the sink heard nothing")
		}
	})
}

// TestManyJobs runs jobs at once through a memory that fails the test when it is ever overfull, while
// runtimes end and callers give up.
func TestManyJobs(t *testing.T) {
	var log strings.Builder // by one goroutine
	h := newHouse(t, 160, Options{Sink: func(e Event) { fmt.Fprintln(&log, e.Action, e.Reason) }})
	var jobs sync.WaitGroup
	for j := range 8 {
		jobs.Go(func() {
			r := rand.New(rand.NewSource(int64(j)))
			id := JobID(fmt.Sprint("job-", j))
			defer h.Forget(id)
			for range 30 {
				var turns []Need
				for _, k := range stage.Kinds() {
					turns = append(turns, h.request(k).Need)
				}
				h.Announce(id, turns)
				for _, n := range turns {
					ctx, cancel := context.WithCancel(t.Context())
					if r.Intn(4) == 0 {
						time.AfterFunc(time.Duration(r.Intn(1000))*time.Microsecond, cancel)
					}
					lease, err := h.Acquire(ctx, AcquireRequest{Job: id, Need: n, Observer: Observer{Event: func(Event) {}}})
					if err == nil {
						h.memory.add(10)
						if preview, ok := h.TryAcquire(ctx, AcquireRequest{Job: id, Need: turns[2]}); ok {
							h.memory.add(10)
							h.memory.add(-10)
							preview.Release()
						}
						h.memory.add(-10)
						lease.Release()
					} else if ctx.Err() == nil {
						t.Error(err)
					}
					cancel()
				}
			}
		})
	}
	jobs.Wait()
	h.Close()
	if t.Failed() {
		t.Log(log.String())
	}
}
