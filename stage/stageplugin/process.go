package stageplugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"github.com/hashicorp/go-plugin/runner"
)

// pipeGrace is how long after the child's end its last output may take to be read. It matters only
// if the child left a process of its own behind that holds the pipes.
const pipeGrace = time.Second

// process is the child's operating system process, as go-plugin wants it (runner.Runner). It is our
// own because go-plugin's gives the child the parent's stdin, and does not keep the thread that
// started it alive.
type process struct {
	launch context.Context // its end before started kills the child
	cmd    *exec.Cmd
	line   string // written to the child's stdin first

	stdin          *os.File // held open until the child has ended, see endWithParent
	stdout, stderr *os.File
	unwatch        func() bool // launch no longer matters; false if it has killed the child

	exited chan struct{} // closed when the child has been reaped; then err is set
	err    error
}

var _ runner.Runner = (*process)(nil)

// newProcess prepares a process that runs command with the environment env and has line on its stdin.
func newProcess(launch context.Context, command, env []string, line string) *process {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = env
	cmd.SysProcAttr = sysProcAttr()
	return &process{launch: launch, cmd: cmd, line: line, exited: make(chan struct{})}
}

// Start starts the process. The context is go-plugin's and has nothing to say.
func (p *process) Start(context.Context) error {
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return err
	}
	p.unwatch = context.AfterFunc(p.launch, p.kill)
	return nil
}

// run is the life of the process. Linux sends the parent-death signal when the thread that started
// the child ends, so this one is locked until the child has gone.
func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	theirs, err := p.openPipes()
	if err == nil {
		err = p.cmd.Start()
	}
	for _, f := range theirs {
		_ = f.Close()
	}
	if err != nil {
		p.closePipes()
		started <- err
		return
	}
	started <- nil
	p.err = p.cmd.Wait()
	deadline := time.Now().Add(pipeGrace)
	_ = p.stdout.SetReadDeadline(deadline)
	_ = p.stderr.SetReadDeadline(deadline)
	close(p.exited)
}

// openPipes connects the standard files of the command and returns the child's ends.
func (p *process) openPipes() (theirs []*os.File, err error) {
	var in, out, errs *os.File
	if in, p.stdin, err = os.Pipe(); err != nil {
		return nil, err
	}
	theirs = append(theirs, in)
	if _, err = p.stdin.WriteString(p.line); err != nil { // far less than a pipe holds
		return theirs, err
	}
	if p.stdout, out, err = os.Pipe(); err != nil {
		return theirs, err
	}
	theirs = append(theirs, out)
	if p.stderr, errs, err = os.Pipe(); err != nil {
		return theirs, err
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = in, out, errs
	return append(theirs, errs), nil
}

// closePipes closes the parent's ends. Closing a nil file is an error and nothing more.
func (p *process) closePipes() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		_ = f.Close()
	}
}

// kill ends the process now; it does nothing to one that has ended.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

// started tells whether there ever was a process.
func (p *process) started() bool { return p.cmd.Process != nil }

// exit says how the process ended, once exited is closed.
func (p *process) exit() string { return p.cmd.ProcessState.String() }

// Wait returns when the process has been reaped.
func (p *process) Wait(context.Context) error {
	<-p.exited
	return p.err
}

// Kill ends the process now.
func (p *process) Kill(context.Context) error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Stdout is where the child's side of the handshake comes from.
func (p *process) Stdout() io.ReadCloser { return p.stdout }

// Stderr has the child's log.
func (p *process) Stderr() io.ReadCloser { return p.stderr }

// Name is the program.
func (p *process) Name() string { return p.cmd.Path }

// ID is the pid, empty before the process is started.
func (p *process) ID() string {
	if p.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(p.cmd.Process.Pid)
}

// Diagnose is for a child whose first line is no handshake.
func (p *process) Diagnose(context.Context) string {
	return fmt.Sprintf("is %s a triptych binary of this version?", p.cmd.Path)
}

// PluginToHost and HostToPlugin translate socket addresses: parent and child see the same files.
func (p *process) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

// HostToPlugin is the inverse of PluginToHost.
func (p *process) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
