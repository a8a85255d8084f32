package host

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// scripted is a child that answers and has the processor as a test says.
type scripted struct {
	begin  time.Time
	exited chan struct{}
	life   func(lived time.Duration) life
}

// life is what a scripted child does at some time.
type life struct {
	mute, idle bool
	pulse      stage.Pulse
}

func (s *scripted) now() life               { return s.life(time.Since(s.begin)) }
func (s *scripted) Exited() <-chan struct{} { return s.exited }

func (s *scripted) Pulse(ctx context.Context) (stage.Pulse, error) {
	for s.now().mute {
		select {
		case <-ctx.Done():
			return stage.Pulse{}, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return s.now().pulse, nil
}

func (s *scripted) Usage() string {
	if s.now().idle {
		return "the same"
	}
	return fmt.Sprint(time.Since(s.begin))
}

// TestWatchdog: what does not answer and does not run is ended within seconds, what does not answer or does not move within a
// minute, what is slow never.
func TestWatchdog(t *testing.T) {
	after := func(d time.Duration, hang life) func(time.Duration) life {
		return func(lived time.Duration) life {
			if lived < d {
				return life{pulse: stage.Pulse{Running: 1, Moved: uint64(lived)}}
			}
			return hang
		}
	}
	at := func(running int, moved time.Duration) life {
		return life{pulse: stage.Pulse{Running: running, Moved: uint64(moved)}}
	}
	for name, c := range map[string]struct {
		life     func(time.Duration) life
		min, max time.Duration // when it is ended; 0 if it is not
		why      string
	}{
		"stopped":         {after(10*time.Second, life{mute: true, idle: true}), 15 * time.Second, 16500 * time.Millisecond, "no processor time"},
		"stopped at once": {after(0, life{mute: true, idle: true}), 5 * time.Second, 7 * time.Second, "no processor time"},
		"spins":           {after(10*time.Second, life{mute: true}), 70 * time.Second, 72 * time.Second, "did not answer for 1m0s"},
		"deadlocked":      {after(10*time.Second, at(1, 0)), 70 * time.Second, 72 * time.Second, "stood still at work for 1m0s"},
		"idle":            {after(10*time.Second, at(0, 0)), 0, 0, ""},
		"slow to answer":  {func(l time.Duration) life { return life{mute: l%(40*time.Second) < 39*time.Second} }, 0, 0, ""},
		"starved": {func(l time.Duration) life {
			return life{mute: l%(40*time.Second) < 39*time.Second, idle: l%(4*time.Second) > time.Second}
		}, 0, 0, ""},
		"moves every 50 s": {func(l time.Duration) life { return at(2, l/(50*time.Second)) }, 0, 0, ""},
		"was slow before":  {func(l time.Duration) life { return at(1, min(l, time.Minute)/(5*time.Second)) }, 145 * time.Second, 165 * time.Second, "stood still"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{time.Now(), make(chan struct{}), c.life}
				limit := time.AfterFunc(time.Hour, func() { close(s.exited) })
				defer limit.Stop()
				why := watch(s)
				took := time.Since(s.begin)
				switch {
				case c.max == 0 && why != "":
					t.Errorf("ended after %v: it %s", took, why)
				case c.max > 0 && (took < c.min || took > c.max || !strings.Contains(why, c.why)):
					t.Errorf("after %v it %q, expected %v to %v and %q", took, why, c.min, c.max, c.why)
				}
			})
		})
	}
}

// TestWatchdogLate: time in which the watchdog itself did not run, because the machine was suspended, does not count.
func TestWatchdogLate(t *testing.T) {
	var w watchdog
	now := time.Unix(0, 0)
	for range 1000 {
		now = now.Add(maxIdle - 2*pulseInterval)
		if why := w.tick(now, "the same", true); why != "" {
			t.Fatalf("ended: it %s", why)
		}
		for range 3 {
			now = now.Add(pulseInterval)
			if why := w.tick(now, "the same", true); why != "" {
				t.Fatalf("ended: it %s", why)
			}
		}
	}
	w.answered(stage.Pulse{Running: 1, Moved: 1})
	for range 10 {
		now = now.Add(time.Hour)
		w.tick(now, "the same", true)
		if why := w.answered(stage.Pulse{Running: 1, Moved: 1}); why != "" {
			t.Fatalf("ended: it %s", why)
		}
	}
}

// freeze stops a child, and returns when it has stopped.
func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("the child is not frozen: %v, %v", status, err)
	}
}

// TestStoppedChild: whoever waits for a child that is stopped hears of its end within seconds, and the next one is as good.
func TestStoppedChild(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere it takes a minute to tell a stopped child from a slow one")
	}
	o := options(stage.KindEncoder, once(t, "hold encode 1")...)
	begun := watchLog(&o, "turn encode")
	e := open(t, o, realTime())
	load(t, e)
	results := map[string]chan error{}
	start := func(name string, call func() error) {
		result := make(chan error, 1)
		results[name] = result
		go func() { result <- call() }()
	}
	start("Encode", func() error { return take(t.Context(), e) })
	await(t, "Encode to begin", begun)
	stopped := time.Now()
	freeze(t, e.PID())
	start("Load", func() error {
		return e.Load(t.Context(), stage.LoadRequest{Component: stagetest.Component(stage.KindEncoder, stagetest.OtherModel)}, nil)
	})
	start("Plan", func() error {
		_, err := e.Plan(t.Context(), stage.PlanRequest{Turn: stagetest.Request(stage.KindEncoder).Turn, Components: []string{component(e)}})
		return err
	})
	start("Evict", func() error {
		_, err := e.Evict(t.Context(), stage.EvictRequest{Component: component(e)})
		return err
	})
	start("Settle", func() error { return e.Settle(t.Context(), component(e)) })
	for _, name := range []string{"Encode", "Load", "Plan"} {
		err := await(t, name, results[name])
		if wantDied(t, e, err); !strings.Contains(fmt.Sprint(err), "no processor time for") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if took := time.Since(stopped); took < maxIdle || took > 3*maxIdle {
		t.Errorf("the end of a stopped child was heard of after %v", took)
	}
	for _, name := range []string{"Evict", "Settle"} { // behind Encode: in the next child, or of none
		if err := await(t, name, results[name]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantFresh(t, e, 2)
	load(t, e)
	if err := take(t.Context(), e); err != nil {
		t.Errorf("Encode in the next child: %v", err)
	}
}

// TestDrainStoppedChild: a service whose idle child is stopped drains, and closes, within seconds.
func TestDrainStoppedChild(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("as TestStoppedChild")
	}
	h := open(t, options(stage.KindEncoder), realTime())
	freeze(t, h.PID())
	drained := make(chan error, 1)
	stopped := time.Now()
	go func() { drained <- h.Drain(t.Context()) }()
	if err := await(t, "Drain", drained); err != nil {
		t.Errorf("Drain: %v", err)
	}
	h.Close()
	if took := time.Since(stopped); took > 3*maxIdle {
		t.Errorf("it took %v", took)
	}
}
