package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/triptych-serving/triptych/stage"
)

// The test binary is the program of a Stack when folderKey is set: a folder where every start is noted, by process. hopelessKey
// names the process that says that it is, dyingKey the one that dies, servedKey the one that does so once it has served.
const (
	folderKey   = "LOCAL_TEST_FOLDER"
	hopelessKey = "LOCAL_TEST_HOPELESS"
	dyingKey    = "LOCAL_TEST_DYING"
	servedKey   = "LOCAL_TEST_SERVED"
)

func TestMain(m *testing.M) {
	if folder := os.Getenv(folderKey); folder != "" {
		os.Exit(play(folder, os.Args[1]))
	}
	goleak.VerifyTestMain(m)
}

func play(folder, name string) int {
	starts, _ := filepath.Glob(filepath.Join(folder, name+"-*"))
	if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%s-%d", name, len(starts))), nil, 0o600); err != nil {
		return 1
	}
	switch name {
	case os.Getenv(hopelessKey):
		fmt.Fprint(os.Stderr, "a line of its log\ntriptych: --threads 10000: too many\n")
		return ExitHopeless
	case os.Getenv(dyingKey):
		fmt.Fprintln(os.Stderr, "out of luck")
		return 1
	}
	ctx, cancel, err := Supervised(context.Background())
	if err != nil {
		return 1
	}
	defer cancel()
	if id := OwnerOf(ctx); id == "" || strings.Contains(strings.Join(append(os.Args, os.Environ()...), " "), id) {
		return 1
	} else if err := os.WriteFile(filepath.Join(folder, "owner-"+id), nil, 0o600); err != nil {
		return 1
	}
	lis, err := net.FileListener(os.NewFile(firstFile, "listener"))
	if err != nil {
		return 1
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(lis) }()
	if name == os.Getenv(servedKey) && len(starts) == 0 {
		for { // until the test has seen that it serves
			if _, err := os.Stat(filepath.Join(folder, "end")); err == nil {
				return ExitHopeless
			}
			time.Sleep(time.Millisecond)
		}
	}
	<-ctx.Done() // the stack's end
	server.Stop()
	return 0
}

// run starts a stack of test binaries with the environment given.
func run(t *testing.T, env ...string) (s *Stack, folder string) {
	t.Helper()
	folder = t.TempDir()
	t.Setenv(folderKey, folder)
	for _, e := range env {
		key, value, _ := strings.Cut(e, "=")
		t.Setenv(key, value)
	}
	s, err := Start(Options{
		Program: os.Args[0], Listen: "127.0.0.1:0", StageArgs: func(stage.Kind) []string { return nil },
		Stderr: io.Discard, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s, folder
}

func starts(t *testing.T, folder, name string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, name+"-*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// TestGivenUp: a process that has never served is given up with its words, at once if it says that it is hopeless.
func TestGivenUp(t *testing.T) {
	for _, c := range []struct {
		env, words   string
		code, starts int
	}{
		{hopelessKey, "--threads 10000: too many", ExitHopeless, 1},
		{dyingKey, "out of luck", 1, maxStarts},
	} {
		s, folder := run(t, c.env+"=denoiser")
		var gone *GivenUpError
		if err := <-s.Failed(); !errors.As(err, &gone) || *gone != (GivenUpError{Name: "denoiser", Words: c.words, Code: c.code}) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", c.env, err)
		}
		if n := starts(t, folder, "denoiser"); n != c.starts {
			t.Errorf("%s: it was started %d times, want %d", c.env, n, c.starts)
		}
		t.Setenv(c.env, "")
	}
}

// TestServedIsRestarted: a process that has served is started again whatever it says at its end.
func TestServedIsRestarted(t *testing.T) {
	s, folder := run(t, servedKey+"=denoiser")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.AwaitServing(ctx); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "end"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for starts(t, folder, "denoiser") < 2 {
		select {
		case err := <-s.Failed():
			t.Fatal(err)
		case <-ctx.Done():
			t.Fatal("it was not started again")
		case <-time.After(time.Millisecond):
		}
	}
}

// TestStoppedIsRestarted: a process that is stopped is killed and started again.
func TestStoppedIsRestarted(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what a process has used is told by Linux alone")
	}
	s, folder := run(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.AwaitServing(ctx); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.processes {
		if err := syscall.Kill(p.pid(), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range s.processes {
		for starts(t, folder, p.name) < 2 {
			select {
			case err := <-s.Failed():
				t.Fatal(err)
			case <-ctx.Done():
				t.Fatalf("the %s was not started again", p.name)
			case <-time.After(time.Millisecond):
			}
		}
	}
}

// TestOwner: all processes of a stack hear one id, which no list of processes shows, and those of another one another.
func TestOwner(t *testing.T) {
	ids := map[string]bool{}
	for range 2 {
		s, folder := run(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.AwaitServing(ctx); err != nil {
			t.Fatal(err)
		}
		all, err := filepath.Glob(filepath.Join(folder, "owner-*"))
		if err != nil || len(all) != 1 {
			t.Fatalf("ids are %q: %v", all, err)
		}
		ids[filepath.Base(all[0])] = true
	}
	if len(ids) != 2 {
		t.Errorf("two stacks have the ids %v", ids)
	}
}

// TestWords: the last line is kept, however it is cut, and bounded.
func TestWords(t *testing.T) {
	for _, c := range []struct {
		writes []string
		last   string
	}{
		{nil, ""},
		{[]string{"one\ntriptych: two\n"}, "two"},
		{[]string{"on", "e\ntrip", "tych: tw", "o"}, "two"},
		{[]string{"one\n", "\n"}, "one"},
		{[]string{strings.Repeat("x", 2*maxWords)}, strings.Repeat("x", maxWords)},
		{slices.Repeat([]string{"x"}, 2*maxWords), strings.Repeat("x", maxWords)},
	} {
		w := &words{to: io.Discard}
		for _, text := range c.writes {
			if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
				t.Fatal(n, err)
			}
		}
		if got := w.last(); got != c.last {
			t.Errorf("%.40q: last is %.40q, want %.40q", c.writes, got, c.last)
		}
	}
}
