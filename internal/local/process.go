package local

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// A process that has served and dies is started again, at once if it had been well for wellAfter, else after a
// pause that doubles. One that has never served is given up after maxStarts, or at once if it says itself that it is hopeless.
// One that is asked to stop gets stopTimeout.
const (
	maxStarts   = 3
	wellAfter   = 5 * time.Second
	firstPause  = 100 * time.Millisecond
	lastPause   = 5 * time.Second
	stopTimeout = 10 * time.Second
)

// A program that has answered is asked how it is every askInterval. One that leaves maxMisses questions in a row unanswered, each for
// answerTimeout and without a moment of processor time, is stopped or frozen: it is killed, and started again as one that died. Two
// questions, since this process may have been stopped itself during the one.
const (
	askInterval   = time.Second
	answerTimeout = 3 * time.Second
	maxMisses     = 2
)

// ExitHopeless is the exit code of a program that says it cannot run as it was asked to: unless it has served before, it is not
// started again.
const ExitHopeless = 2

// GivenUpError is a process that has never served and is not started again.
type GivenUpError struct {
	Name  string
	Words string // the last that it said
	Code  int    // that it exited with; -1 for a signal
}

// Error names the process and gives its words.
func (e *GivenUpError) Error() string {
	if e.Words == "" {
		return fmt.Sprintf("the %s does not start: exit code %d", e.Name, e.Code)
	}
	return fmt.Sprintf("the %s does not start: %s", e.Name, e.Words)
}

// process is one program that is kept running.
type process struct {
	name, program string
	args          []string
	listeners     []*os.File // become files 3 and up of the program
	stderr        *words
	owner         string        // told to the program on its standard input
	served        chan struct{} // closed when it has answered that it is there
	log           *slog.Logger
	stopping      chan struct{} // closed by stop
	done          chan struct{} // closed when supervise has returned
	failed        chan<- error  // told when the program is given up

	mu      sync.Mutex
	cmd     *exec.Cmd
	life    io.Closer // the program's standard input
	started time.Time
	stopped bool
}

// start starts the program once.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return errStopped
	}
	cmd := exec.Command(p.program, p.args...)
	cmd.Env = append(os.Environ(), supervisedEnv+"=1")
	cmd.Stderr = p.stderr
	cmd.ExtraFiles = p.listeners
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ctrl-C is for the supervisor
	life, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.cmd, p.life, p.started = cmd, life, time.Now()
	_, _ = io.WriteString(life, p.owner+"\n") // one that does not read has ended, which is noticed
	return nil
}

var errStopped = errors.New("stopped")

// supervise waits for the program to end and starts it again, until stop.
func (p *process) supervise() {
	defer close(p.done)
	pause := firstPause
	for starts := 1; ; starts++ {
		err := p.cmd.Wait() // cmd is written by start alone, which only this goroutine calls from now on
		select {
		case <-p.stopping:
			return
		default:
		}
		if code := p.cmd.ProcessState.ExitCode(); !p.hasServed() && (code == ExitHopeless || starts == maxStarts) {
			p.failed <- &GivenUpError{Name: p.name, Words: p.stderr.last(), Code: code}
			return
		}
		if time.Since(p.started) > wellAfter {
			pause = firstPause
		}
		p.log.Warn("process ended, starting it again", "error", err, "pause", pause)
		for {
			select {
			case <-p.stopping:
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, lastPause)
			err := p.start()
			if err == nil {
				break
			}
			p.log.Error("process cannot be started", "error", err)
		}
	}
}

func (p *process) hasServed() bool {
	select {
	case <-p.served:
		return true
	default:
		return false
	}
}

// pid is the program's as it runs now.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// kill ends the program if it still is the one with this pid; supervise starts it again.
func (p *process) kill(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd.Process.Pid == pid {
		_ = p.cmd.Process.Kill() // one that has just ended by itself is as good
	}
}

// stop ends the program, and kills it if it takes too long. It returns when nothing is left of it.
func (p *process) stop() error {
	p.mu.Lock()
	p.stopped = true
	close(p.stopping)
	cmd, life := p.cmd, p.life
	p.mu.Unlock()

	_ = cmd.Process.Signal(syscall.SIGTERM) // one that has just ended by itself is as good
	_ = life.Close()
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		p.log.Warn("process does not end, killing it", "after", stopTimeout)
		_ = cmd.Process.Kill()
		<-p.done
	}
	return p.closeListeners()
}

// firstFile is the number of the first listener in the program.
const firstFile = 3

func (p *process) closeListeners() (err error) {
	for _, l := range p.listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}
