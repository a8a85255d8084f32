//go:build unix

package stageplugin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

func TestKill(t *testing.T) {
	child := launch(t, stage.KindDenoiser)
	pid := child.PID()
	if pgid, err := syscall.Getpgid(pid); err != nil || pgid != pid {
		t.Errorf("process group %d of process %d (%v)", pgid, pid, err)
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(child.Kill)
	}
	all.Wait()
	gone(t, pid)
	if exit := child.Exit(); exit != "exit status 0" {
		t.Errorf("the stop was not graceful: %s", exit)
	}
}

// TestNothingToLeave: a child that runs has no files, so that none are left by a parent that is killed.
func TestNothingToLeave(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	child := launch(t, stage.KindDenoiser)
	if _, err := os.Stat(child.socketDir); !errors.Is(err, fs.ErrNotExist) || filepath.Dir(child.socketDir) != dir {
		t.Errorf("the folder of the socket is there: %s, %v", child.socketDir, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in TMPDIR: %v, %v", left, err)
	}
	if _, err := child.Stage().Info(t.Context()); err != nil {
		t.Errorf("the child no longer answers: %v", err)
	}
}

// gone checks that a former child has been reaped.
func gone(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", pid, err)
	}
}

func TestKillFrozen(t *testing.T) {
	child := launch(t, stage.KindEncoder)
	if err := syscall.Kill(child.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(child.PID(), &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("the child is not frozen: %v, %v", status, err)
	}
	before := child.Usage()
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if p, err := child.Pulse(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it has a pulse: %v, %v", p, err)
	}
	if now := child.Usage(); now != before || runtime.GOOS == "linux" && now == "" {
		t.Errorf("it has used %q, before %q", now, before)
	}
	child.Kill()
	gone(t, child.PID())
	if exit := child.Exit(); exit != "signal: killed" {
		t.Errorf("exit = %q", exit)
	}
}

func TestExited(t *testing.T) {
	child := launch(t, stage.KindEncoder)
	if err := syscall.Kill(child.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-child.Exited()
	gone(t, child.PID())
	child.Kill()
}

// lifeline makes a named pipe, and a channel that is closed when the process that was given it by
// lifeKey has ended.
func lifeline(t *testing.T) (path string, ended <-chan struct{}) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "life")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		_, _ = io.Copy(io.Discard, f)
	}()
	return path, done
}

func await(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(30 * time.Second):
		t.Fatalf("waited too long for %s", what)
	}
}

// TestParentKilled kills a parent with SIGKILL and waits for its child to end.
func TestParentKilled(t *testing.T) {
	life, ended := lifeline(t)
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), roleKey+"=parent", lifeKey+"="+life, "TMPDIR="+t.TempDir())
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer parent.Wait()
	defer parent.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the child is not there: %v", err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, "the child of a killed parent to end", ended)
}

// TestParentGone takes away only the pipe, as where the kernel sends no parent-death signal.
func TestParentGone(t *testing.T) {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), cookieKey+"="+cookieValue, kindKey+"=encoder", "TMPDIR="+t.TempDir())
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Process.Kill()
	own, err := newCredentials()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, own.line()); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "1|") {
		t.Fatalf("the handshake is %q, %v", line, err)
	}
	in.Close()
	var exit *exec.ExitError
	if err := child.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitOrphaned {
		t.Errorf("the child ended with %v", err)
	}
}
