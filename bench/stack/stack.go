// Package stack runs `triptych up` for benchmarks, and looks at it from outside.
//
// The package may import proto, stage and stage/stagerpc.
package stack

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
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// Stack is a running `triptych up`.
type Stack struct {
	Conn     *grpc.ClientConn // to the orchestrator
	Runtimes map[string]int   // process ids, by stage

	cmd       *exec.Cmd
	log       bytes.Buffer
	addresses map[string]string // by stage
}

var addressLine = regexp.MustCompile(`^(encoder|denoiser|decoder|orchestrator)\s+(\S+:\d+)$`)

// Start starts everything and waits until it serves.
func Start(program string, models []string, args ...string) (*Stack, error) {
	s := &Stack{addresses: map[string]string{}}
	args = append([]string{"up", "--listen", "127.0.0.1:0", "--log-level", "error"}, args...)
	for _, m := range models {
		args = append(args, "--models", m)
	}
	s.cmd = exec.Command(program, args...)
	s.cmd.Stderr = &s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for len(s.addresses) < 4 && lines.Scan() {
		if m := addressLine.FindStringSubmatch(lines.Text()); m != nil {
			s.addresses[m[1]] = m[2]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	if len(s.addresses) < 4 {
		return nil, errors.Join(fmt.Errorf("triptych up ended before it served: %s", s.log.String()), s.cmd.Wait())
	}
	if s.Runtimes, err = runtimes(s.cmd.Process.Pid); err == nil {
		s.Conn, err = grpc.NewClient(s.addresses["orchestrator"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	if err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Stop is ctrl-C.
func (s *Stack) Stop() error {
	if s.Conn != nil {
		_ = s.Conn.Close()
	}
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("triptych up: %w: %s", err, s.log.String())
	}
	return nil
}

// PID is that of the program, whose children all others are.
func (s *Stack) PID() int { return s.cmd.Process.Pid }

// Generate runs a job to its end; each, which may be nil, hears of its events.
func (s *Stack) Generate(ctx context.Context, spec *triptychv1alpha1.GenerationSpec, each func(*triptychv1alpha1.GenerateResponse)) (*triptychv1alpha1.Completed, error) {
	stream, err := triptychv1alpha1.NewGenerationServiceClient(s.Conn).Generate(ctx, &triptychv1alpha1.GenerateRequest{Spec: spec})
	if err != nil {
		return nil, err
	}
	var done *triptychv1alpha1.Completed
	for {
		e, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && done != nil:
			return done, nil
		case err != nil:
			return nil, fmt.Errorf("a job of model %s: %w", spec.GetModel(), err)
		}
		if c := e.GetCompleted(); c != nil {
			done = c
		}
		if each != nil {
			each(e)
		}
	}
}

// Allocated is what the allocator of a stage's runtime says: bytes now, and the most ever.
func (s *Stack) Allocated(ctx context.Context, kind stage.Kind) (used, peak int64, err error) {
	conn, err := grpc.NewClient(s.addresses[kind.String()], append(stagerpc.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close() //nolint:errcheck // it was only read
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	info, err := stagerpc.New(conn, kind).Info(ctx)
	return info.UsedBytes, info.PeakBytes, err
}

// tree gives the processes below one, with their arguments.
func tree(root int) (map[int][]string, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	parents, arguments := map[int]int{}, map[int][]string{}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		line, cmdErr := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err != nil || cmdErr != nil {
			continue // it has just ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parents[pid], _ = strconv.Atoi(strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))[1])
		arguments[pid] = strings.Split(string(line), "\x00")
	}
	out := map[int][]string{}
	for pid, words := range arguments {
		for p := parents[pid]; p > 1; p = parents[p] {
			if p == root {
				out[pid] = words
			}
		}
	}
	return out, nil
}

// runtimes finds the runtime processes below a process.
func runtimes(root int) (map[string]int, error) {
	all, err := tree(root)
	out := map[string]int{}
	for pid, words := range all {
		if len(words) > 2 && words[1] == "runtime" {
			out[words[2]] = pid
		}
	}
	if err == nil && len(out) != len(stage.Kinds()) {
		err = fmt.Errorf("expected a runtime of each stage, got %v", out)
	}
	return out, err
}
