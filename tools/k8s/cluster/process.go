//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// A process is a program of the cluster, with its log beside its pid in the cluster's folder.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when it has ended
	err   error         // why, once ended
}

// start runs a program until the cluster ends or stop does it.
func (c *Cluster) start(name, program string, env []string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(c.Dir, name+".log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	pid := strconv.Itoa(p.cmd.Process.Pid)
	if err := os.WriteFile(filepath.Join(c.Dir, name+".pid"), []byte(pid), 0o600); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	c.processes = append(c.processes, p)
	return p, nil
}

// stop ends a process, gently for 10 s.
func (c *Cluster) stop(p *process) {
	c.processes = slices.DeleteFunc(c.processes, func(other *process) bool { return other == p })
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// ready waits until a probe of a process succeeds. It gives up when the time is over or the process
// ends, and then tells the end of its log.
func (c *Cluster) ready(ctx context.Context, p *process, within time.Duration, probe func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := Wait(ctx, within, probe)
	select {
	case <-p.ended:
		err = errors.Join(fmt.Errorf("%s has ended: %w", p.name, p.err), err)
	default:
	}
	if err != nil {
		return fmt.Errorf("%s is not ready: %w\n%s", p.name, err, tail(p.log, 2000))
	}
	return nil
}

// Wait calls a probe every 100 ms until it succeeds, and fails with its last error when the time is
// over.
func Wait(ctx context.Context, within time.Duration, probe func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := probe(limited)
		if err == nil {
			return nil
		}
		if limited.Err() == nil {
			last = err
		}
		select {
		case <-limited.Done():
			if err := ctx.Err(); err != nil {
				return errors.Join(err, last)
			}
			return fmt.Errorf("not within %s: %w", within, errors.Join(last, errIfNone(last, err)))
		case <-tick.C:
		}
	}
}

// errIfNone is err where there was no earlier error.
func errIfNone(last, err error) error {
	if last != nil {
		return nil
	}
	return err
}
