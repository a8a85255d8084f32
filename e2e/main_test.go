//go:build linux

// Package e2e runs the real binary the way people do: one command, real processes, real sockets.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// patience bounds everything that should take seconds; a busy machine may be slow.
const patience = 2 * time.Minute

var program string // built once by TestMain

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "triptych-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "triptych")
	// Budgets of tests are theirs, and not those of whatever else runs here.
	claims := filepath.Join(dir, "claims")
	if err := errors.Join(os.Mkdir(claims, 0o700), os.Setenv("TRIPTYCH_DEVICE_CLAIMS", claims)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	build := exec.Command("go", "build", "-o", program, "./cmd/triptych")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
		return 1
	}
	return m.Run()
}

// command is the binary in the repository's root, where models/ is.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	return cmd
}

// result is what a command left.
type result struct {
	stdout, stderr string
	code           int
}

func runCommand(t *testing.T, args ...string) result {
	t.Helper()
	cmd := command(t, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// server is a running `triptych up`.
type server struct {
	cmd       *exec.Cmd
	addresses map[string]string
	examples  []string // commands that it tells to try
	client    triptychv1alpha1.GenerationServiceClient
	conn      *grpc.ClientConn
	log       *bytes.Buffer
}

var addressLine = regexp.MustCompile(`^(encoder|denoiser|decoder|orchestrator|metrics)\s+(?:http://)?([^/\s]+:\d+)(?:/metrics)?$`)

// up starts everything and waits until it says where it listens.
func up(t testing.TB, args ...string) *server {
	t.Helper()
	s := &server{addresses: map[string]string{}, log: &bytes.Buffer{}}
	s.cmd = exec.Command(program, append([]string{"up", "--listen", "127.0.0.1:0"}, args...)...)
	s.cmd.Dir = ".."
	s.cmd.Stderr = s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop(t) })
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ctrl-C stops everything." {
		if m := addressLine.FindStringSubmatch(lines.Text()); m != nil {
			s.addresses[m[1]] = m[2]
		}
		if example, ok := strings.CutPrefix(lines.Text(), "  "); ok {
			s.examples = append(s.examples, example)
		}
	}
	if len(s.addresses) < 4 {
		t.Fatalf("up said where %v are, then ended:\n%s", s.addresses, s.log)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	s.conn, err = grpc.NewClient(s.addresses["orchestrator"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	s.client = triptychv1alpha1.NewGenerationServiceClient(s.conn)
	return s
}

// stop is ctrl-C. Nothing may be left afterwards. Idempotent.
func (s *server) stop(t testing.TB) {
	t.Helper()
	if s.cmd.ProcessState != nil {
		return
	}
	_ = s.conn.Close()
	family := descendants(t, s.cmd.Process.Pid)
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	kill := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("up ended with %v:\n%s", err, s.log)
	}
	for pid, args := range family {
		if alive(pid) {
			t.Errorf("process %d is left: %s", pid, args)
		}
	}
}

// generate runs a request to its end and gives every event.
func (s *server) generate(ctx context.Context, spec *triptychv1alpha1.GenerationSpec, each func(*triptychv1alpha1.GenerateResponse)) ([]*triptychv1alpha1.GenerateResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s.generateFor(ctx, spec, each)
}

// generateFor is generate for as long as ctx lasts.
func (s *server) generateFor(ctx context.Context, spec *triptychv1alpha1.GenerationSpec, each func(*triptychv1alpha1.GenerateResponse)) ([]*triptychv1alpha1.GenerateResponse, error) {
	stream, err := s.client.Generate(ctx, &triptychv1alpha1.GenerateRequest{Spec: spec})
	if err != nil {
		return nil, err
	}
	var events []*triptychv1alpha1.GenerateResponse
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return events, nil
		}
		if err != nil {
			return events, err
		}
		events = append(events, e)
		if each != nil {
			each(e)
		}
	}
}

// images gives the files of a request by index, whichever was ready first. They are below the size that
// is sent in parts.
func images(t testing.TB, events []*triptychv1alpha1.GenerateResponse) [][]byte {
	t.Helper()
	var out [][]byte
	for _, e := range events {
		if a := e.GetAccepted(); a != nil {
			out = make([][]byte, a.GetSpec().GetImageCount())
		}
		if i := e.GetImageReady(); i != nil {
			if int64(len(i.GetData())) != i.GetSizeBytes() {
				t.Fatalf("image %d has %d bytes of %d", i.GetImageIndex(), len(i.GetData()), i.GetSizeBytes())
			}
			out[i.GetImageIndex()] = i.GetData()
		}
	}
	return out
}

// descendants are the processes below pid, with their arguments.
func descendants(t testing.TB, pid int) map[int]string {
	t.Helper()
	parents, args := map[int]int{}, map[int]string{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parents[child], _ = strconv.Atoi(fields[1])
		line, _ := os.ReadFile(filepath.Dir(path) + "/cmdline")
		args[child] = strings.ReplaceAll(string(line), "\x00", " ")
	}
	out := map[int]string{}
	for child := range parents {
		for p := child; p > 1; p = parents[p] {
			if parents[p] == pid {
				out[child] = args[child]
				break
			}
		}
	}
	return out
}

// find gives the one process below the server whose arguments contain text.
func (s *server) find(t *testing.T, text string) int {
	t.Helper()
	var found []int
	for pid, args := range descendants(t, s.cmd.Process.Pid) {
		if strings.Contains(args, text) {
			found = append(found, pid)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d processes have %q in their arguments", len(found), text)
	}
	return found[0]
}

// alive reports whether a process has not ended, rather than has and waits for its parent to ask.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" Z"))
}

// rss is the resident memory of a process in bytes.
func rss(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

func ptr[T any](v T) *T { return &v }

var listening = regexp.MustCompile(`listening.*address=(\S+:\d+)`)

// startServer starts a command that logs where it listens, and connects to it.
func startServer(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{cmd: cmd, log: &bytes.Buffer{}}
	errOut, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := ""
	lines := bufio.NewScanner(errOut)
	for address == "" && lines.Scan() {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			address = m[1]
		}
	}
	if address == "" {
		t.Fatal("the server ended before it listened")
	}
	go func() { _, _ = io.Copy(s.log, errOut) }()
	if s.conn, err = grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	s.client = triptychv1alpha1.NewGenerationServiceClient(s.conn)
	t.Cleanup(func() {
		_ = s.conn.Close()
		if cmd.ProcessState != nil {
			return // the test has ended it
		}
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v ended with %v:\n%s", cmd.Args, err, s.log)
		}
	})
	return s
}
