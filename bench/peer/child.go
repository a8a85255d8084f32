package peer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The longest a child may take: to import, export and compile what it runs, and for one answer (a compiler may work in
// the first run).
const (
	startLimit = 40 * time.Minute
	workLimit  = 40 * time.Minute
	stopLimit  = 10 * time.Second
)

// Child is a running engine. It is used by one goroutine at a time.
type Child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr tail
	cancel context.CancelFunc
	waited sync.Once
}

// Start starts a program for a network of a model and waits until it is loaded. An engine that says it cannot be had is
// an error. The program's threads are limited by the environment too.
func Start(ctx context.Context, program []string, model, network string, threads int, env ...string) (*Child, Hello, error) {
	ctx, cancel := context.WithCancel(ctx)
	count := strconv.Itoa(threads)
	args := append(append([]string(nil), program[1:]...), model, network, count)
	c := &Child{cancel: cancel, cmd: exec.CommandContext(ctx, program[0], args...)} //nolint:gosec // the program is the caller's choice
	c.cmd.Stderr = &c.stderr
	c.cmd.Env = append(append(os.Environ(), "OMP_NUM_THREADS="+count, "MKL_NUM_THREADS="+count), env...)
	in, err := c.cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, Hello{}, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, Hello{}, err
	}
	c.in, c.out = in, bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		cancel()
		return nil, Hello{}, err
	}
	var hello Hello
	err = c.read(startLimit, &hello)
	if err == nil && hello.Error != "" {
		err = errors.New(hello.Error)
	}
	if err != nil {
		c.Close()
		return nil, hello, err
	}
	return c, hello, nil
}

// Do sends a request and waits for the answer; one that tells an error is an error.
func (c *Child) Do(r Request) (Reply, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return Reply{}, err
	}
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return Reply{}, fmt.Errorf("%s: %w: %s", r.Op, err, c.stderr.String())
	}
	var reply Reply
	if err := c.read(workLimit, &reply); err != nil {
		return Reply{}, fmt.Errorf("%s: %w", r.Op, err)
	}
	if reply.Error != "" {
		return reply, fmt.Errorf("%s: %s", r.Op, reply.Error)
	}
	return reply, nil
}

// read waits for a line of the child; past the limit the child is ended.
func (c *Child) read(limit time.Duration, v any) error {
	timer := time.AfterFunc(limit, c.cancel)
	line, err := c.out.ReadBytes('\n')
	if !timer.Stop() {
		return fmt.Errorf("no answer within %v", limit)
	}
	if err != nil {
		c.Close()
		return fmt.Errorf("the child ended (%v): %s", c.cmd.ProcessState, c.stderr.String())
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("the child said %.200q: %w", line, err)
	}
	return nil
}

// Close ends the child and waits for it. Idempotent.
func (c *Child) Close() {
	c.waited.Do(func() {
		_ = c.in.Close() // the child ends at the end of its input
		timer := time.AfterFunc(stopLimit, c.cancel)
		_, _ = io.Copy(io.Discard, c.out)
		_ = c.cmd.Wait() // how it ended is in its state
		timer.Stop()
		c.cancel()
	})
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	last []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, b...)
	t.last = t.last[max(0, len(t.last)-4096):]
	return len(b), nil
}

// String is the last line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(string(bytes.TrimSpace(t.last)), "\n")
	return lines[len(lines)-1]
}
