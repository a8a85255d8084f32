package host

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestCutBehindCheckpoint: work goes on while it reaches its next checkpoint, or its end, at half its pace, and is cut right behind
// the last one that it reaches so.
func TestCutBehindCheckpoint(t *testing.T) {
	for _, c := range []struct {
		name   string
		resume int // the step it goes on from
		begins int // the checkpoint behind which the shutdown begins
		left   time.Duration
		cut    int // the checkpoint behind which it is cut, 0 if it is not
	}{
		{"no shutdown", 0, 0, 0, 0},
		{"at once", 0, 5, 9 * time.Second, 5},
		{"one more", 0, 5, 11 * time.Second, 10},
		{"two more", 0, 5, 16 * time.Second, 15},
		{"resumed", 10, 15, 9 * time.Second, 15},
		{"the end is near", 0, 20, 5 * time.Second, 0},
		{"the end is not near enough", 0, 20, 4 * time.Second, 20},
		{"time enough", 0, 5, time.Hour, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s shutdown
				call, done := s.begin(t.Context(), false)
				defer done()
				req := stage.WorkRequest{CheckpointEveryNSteps: 5}
				if c.resume > 0 {
					req.Resume = &stage.Checkpoint{Step: c.resume}
				}
				told := 0
				o := call.observed(req, stage.Observer{Checkpoint: func(p stage.Checkpoint) {
					if told = p.Step; told == c.begins {
						s.start(time.Now().Add(c.left))
					}
				}})
				time.Sleep(time.Hour) // until there is memory
				const steps = 22
				o.Ready(steps)
				for step := c.resume + 1; step <= steps && call.ctx.Err() == nil; step++ {
					time.Sleep(time.Second)
					if step%5 == 0 {
						o.Checkpoint(stage.Checkpoint{Step: step})
					}
				}
				if cut := call.ctx.Err() != nil; cut != (c.cut > 0) || cut && told != c.cut {
					t.Errorf("cut is %v, behind the checkpoint of step %d; want it behind %d", cut, told, c.cut)
				}
				if h := (&Host{}); call.ctx.Err() != nil && stage.ReasonOf(h.told(call, context.Canceled)) != stage.StageDraining {
					t.Errorf("it is told as %v", h.told(call, context.Canceled))
				}
			})
		})
	}
}

// TestShutCutsLoads: nobody waits for a load that nothing could be done with.
func TestShutCutsLoads(t *testing.T) {
	o := options(stage.KindEncoder, scriptKey+"=hold load 3")
	h := open(t, o, realTime())
	begun, result := make(chan struct{}), make(chan error, 1)
	go func() {
		result <- h.Load(t.Context(), loading(h), func(loaded, total int64) {
			if 2*loaded == total {
				close(begun)
			}
		})
	}()
	await(t, "the load to begin", begun)
	if err := h.Shut(t.Context()); err != nil {
		t.Errorf("Shut: %v", err)
	}
	if err := await(t, "the load", result); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("a load at the end: %v", err)
	}
	if err := h.Load(t.Context(), loading(h), nil); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("a load behind it: %v", err)
	}
}

// TestShutCuts: work that does not end in time is cut, and its caller goes on elsewhere; so it is if the child hangs, which is gone
// then, and whoever asks it something hears the same.
func TestShutCuts(t *testing.T) {
	for name, hangs := range map[string]bool{"work that goes on": false, "a child that hangs": true} {
		t.Run(name, func(t *testing.T) {
			o := options(stage.KindDenoiser, scriptKey+"=hold denoise 2")
			died := watchLog(&o, "the runtime died")
			h := open(t, o, realTime())
			load(t, h)
			pid := h.PID()
			begun, result, info := make(chan struct{}), make(chan error, 1), make(chan error, 1)
			go func() {
				_, err := h.Work(t.Context(), stagetest.Request(stage.KindDenoiser), stage.Observer{Progress: func(int, int) { close(begun) }})
				result <- err
			}()
			await(t, "the work to begin", begun)
			if hangs {
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				go func() {
					_, err := h.Info(t.Context())
					info <- err
				}()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := h.Shut(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Shut: %v", err)
			}
			if err := await(t, "the work", result); stage.ReasonOf(err) != stage.StageDraining {
				t.Errorf("work at the end: %v", err)
			}
			if hangs {
				// A signal takes its time: the child may still have answered.
				if err := await(t, "the question", info); err != nil && stage.ReasonOf(err) != stage.StageDraining {
					t.Errorf("a question at the end: %v", err)
				}
			}
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("the child %d is left: %v", pid, err)
			}
			select {
			case <-died:
				t.Error("its end is told as a death")
			default:
			}
		})
	}
}

// TestSupervised: a child that is there or being replaced is supervised, whatever that takes; a supervisor that does not get on is not.
func TestSupervised(t *testing.T) {
	clock := newFakeTime()
	o := options(stage.KindEncoder, append(once(t, ""), thenKey+"=refuse")...)
	h := open(t, o, clock.clock())
	want := func(when string, want bool) {
		t.Helper()
		if got := h.Supervised(); got != want {
			t.Errorf("%s: %v", when, got)
		}
	}
	want("with a child", true)
	clock.advance(time.Hour)
	want("with an old child", true)
	kill(t, h)
	first := clock.expect(t, 0)
	want("without one", true)
	clock.advance(time.Minute)
	want("without one for a minute", true)
	close(first.end) // which does not start
	second := clock.expect(t, 250*time.Millisecond)
	want("at the next attempt", true)
	clock.advance(time.Minute)
	want("without one for a minute of this attempt", true)
	clock.advance(time.Minute)
	want("without one for two minutes of this attempt", false)
	close(second.end)
	clock.expect(t, 500*time.Millisecond)
	want("when it gets on again", true)
	h.Close()
	want("closed", true)
}
