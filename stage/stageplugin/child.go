package stageplugin

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin"

	"github.com/triptych-serving/triptych/internal/procusage"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// stopGrace is how long a child may take to answer the request to stop. go-plugin gives it 2 s more
// to end once it has answered.
const stopGrace = 2 * time.Second

// Child is a running child process and the stage in it. Its methods are safe for concurrent use.
type Child struct {
	kind   stage.Kind
	client *plugin.Client
	line   line
	tail   tail

	process   *process
	socketDir string

	killOnce sync.Once
}

// start runs the process and shakes hands.
func (c *Child) start() error {
	protocol, err := c.client.Client()
	if err != nil {
		return err
	}
	raw, err := protocol.Dispense(c.kind.String())
	if err != nil {
		return err
	}
	c.line = raw.(line)
	if err := protocol.Ping(); err != nil {
		return err
	}
	if !c.process.unwatch() {
		return c.process.launch.Err()
	}
	// The connection stands, and is the only one: without its name the socket leaves nothing behind, however this process ends.
	return os.RemoveAll(c.socketDir)
}

// Kind is the kind of stage.
func (c *Child) Kind() stage.Kind { return c.kind }

// Stage is the stage in the child.
func (c *Child) Stage() stage.Stage { return c.line.stage }

// Pulse asks the process for a sign of life. One that is stopped gives none: ctx bounds how long is waited for it.
func (c *Child) Pulse(ctx context.Context) (stage.Pulse, error) {
	return stagerpc.Pulse(ctx, c.line.conn)
}

// Usage is a text that differs whenever the process has had the processor since, or a page of memory; empty where the system
// does not tell.
func (c *Child) Usage() string { return procusage.Of(c.PID()) }

// End ends the process now, which shows in Exited.
func (c *Child) End() { c.process.kill() }

// PID is the process id.
func (c *Child) PID() int { return c.process.cmd.Process.Pid }

// Exited is closed when the process has ended and been reaped, whatever the reason.
func (c *Child) Exited() <-chan struct{} { return c.process.exited }

// Exit tells how the process ended, e.g. "signal: killed". It waits for Exited.
func (c *Child) Exit() string {
	<-c.process.exited
	return c.process.exit()
}

// LastOutput is the end of what the child wrote to standard error, or the beginning of its panic.
func (c *Child) LastOutput() string { return c.tail.String() }

// Kill asks the child to stop, ends it if it does not within a few seconds, and returns when the
// process has been reaped and nothing is left of it, its goroutines and its files. Calls that run
// fail; drain first if they should not. Kill may be called more than once, and must be called once.
func (c *Child) Kill() {
	c.killOnce.Do(func() {
		if c.process != nil && c.process.started() {
			// go-plugin waits for an answer without a bound: a frozen child would hold us forever.
			frozen := time.AfterFunc(stopGrace, c.process.kill)
			c.client.Kill()
			frozen.Stop()
			c.process.closePipes()
		}
		if c.socketDir != "" {
			_ = os.RemoveAll(c.socketDir) // go-plugin forgets it if the process could not be started
		}
	})
}
