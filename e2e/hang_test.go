//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// moves is how long after a process or a connection hangs work goes on elsewhere: 10 s, and as much again for a machine that
// has other things to do.
const moves = 20 * time.Second

// stop stops a process until the test ends.
func stop(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // it may have been ended
}

// warned tells whether a warning of that code says so.
func warned(events []*triptychv1alpha1.GenerateResponse, code, text string) bool {
	for _, e := range events {
		if w := e.GetWarning(); w.GetCode() == code && strings.Contains(w.GetMessage(), text) {
			return true
		}
	}
	return false
}

// longSpec takes some seconds, and its sampler draws noise at every step.
func longSpec() *triptychv1alpha1.GenerationSpec {
	return &triptychv1alpha1.GenerationSpec{Prompt: "rocket on a black background", Seed: ptr(uint64(7)), Steps: ptr(int32(60)), Sampler: "euler_a"}
}

// TestStoppedRuntime: a runtime that is stopped is ended and started again, whatever it was about, and the work goes on from
// its checkpoint. The stages take turns in a budget: who is stopped holds bytes that the others need.
func TestStoppedRuntime(t *testing.T) {
	s := up(t, "--memory-budget", "25MB")
	quiet, err := s.generate(t.Context(), longSpec(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := images(t, quiet)
	var stopped, next time.Time
	events, err := s.generate(t.Context(), longSpec(), func(e *triptychv1alpha1.GenerateResponse) {
		switch p := e.GetProgress(); {
		case p.GetStage() != "denoiser":
		case stopped.IsZero() && p.GetStep() >= 12:
			stop(t, s.find(t, program+" runtime denoiser"))
			stopped = time.Now()
		case !stopped.IsZero() && next.IsZero() && time.Since(stopped) > 2*time.Second: // what was on its way has come
			if next = time.Now(); p.GetStep() < 10 || p.GetStep() > 30 {
				t.Errorf("it went on from step %d", p.GetStep())
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	same(t, want, images(t, events))
	if took := next.Sub(stopped); next.IsZero() || took > moves {
		t.Errorf("the work went on after %v", took)
	}
	if !warned(events, "STAGE_RESTARTED", "did not answer") {
		t.Errorf("nobody warned of it: %v", events)
	}
	stopAll := func() {
		for _, kind := range stageNames { // all of them are idle
			stop(t, s.find(t, program+" runtime "+kind))
		}
	}
	stopAll()
	begin := time.Now()
	if events, err = s.generate(t.Context(), longSpec(), nil); err != nil {
		t.Fatal(err)
	}
	same(t, want, images(t, events))
	if took := time.Since(begin); took > 2*moves {
		t.Errorf("a job with all runtimes stopped took %v", took)
	}
	stopAll()
	begin = time.Now()
	s.stop(t)
	if took := time.Since(begin); took > moves {
		t.Errorf("the end with all runtimes stopped took %v", took)
	}
}

// TestGenerateStoppedRuntime: nor do they hold up a command that runs everything itself.
func TestGenerateStoppedRuntime(t *testing.T) {
	dir := t.TempDir()
	draw := func(name string, line func(pid int, line string)) []byte {
		path := filepath.Join(dir, name)
		cmd := command(t, "generate", "fox", "--seed", "3", "--steps", "60", "--sampler", "euler_a", "-o", path)
		errOut, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(errOut); lines.Scan(); {
			line(cmd.Process.Pid, lines.Text())
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	want := draw("quiet.png", func(int, string) {})
	stopped, told := false, false
	got := draw("stopped.png", func(pid int, line string) {
		if !stopped && strings.HasPrefix(line, "denoiser step") {
			stopped = true
			stop(t, (&server{cmd: &exec.Cmd{Process: &os.Process{Pid: pid}}}).find(t, program+" runtime denoiser"))
		}
		told = told || strings.Contains(line, "did not answer") && strings.Contains(line, "goes on")
	})
	if !bytes.Equal(want, got) {
		t.Error("it is another picture")
	}
	if !told {
		t.Error("nobody was told")
	}
}
