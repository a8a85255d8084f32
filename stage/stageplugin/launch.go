package stageplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/stage"
)

// DefaultStartTimeout is how long a child may take to start where nothing else is said.
const DefaultStartTimeout = 30 * time.Second

// spareTime is what go-plugin's own start timeout has on top of ours, which is the one to fire.
const spareTime = 10 * time.Second

// Options say what to launch.
type Options struct {
	Kind    stage.Kind
	Command []string // program and arguments; the program must call Serve for Kind
	// Env is added to the parent's own environment, as KEY=VALUE; the last of a key counts.
	Env          []string
	Logger       *slog.Logger  // gets the child's log; nil is slog.Default
	StartTimeout time.Duration // until the child has answered the handshake; 0 takes DefaultStartTimeout
}

// StartError says why a child did not start.
type StartError struct {
	Kind    stage.Kind
	Command []string
	// Timeout is set when the child was given up after this long.
	Timeout time.Duration
	// Exit tells how the child ended, empty if it never ran.
	Exit string
	// Stderr is the end of what it wrote there.
	Stderr string
	// Refused is set when another try would end alike: the child said that it cannot run as it was told to, or there is no
	// place for its socket.
	Refused bool
	Cause   error
}

// ExitRefused is the exit code of a child that cannot run as it was told to, whose last line says why.
const ExitRefused = 2

// Error tells everything; of a refusal the reason alone.
func (e *StartError) Error() string {
	if e.Refused {
		return cmp.Or(lastLine(e.Stderr), fmt.Sprint(e.Cause))
	}
	text := fmt.Sprintf("the %v runtime %q did not start", e.Kind, strings.Join(e.Command, " "))
	if e.Timeout > 0 {
		text += fmt.Sprintf(" within %v", e.Timeout)
	} else {
		text += fmt.Sprintf(": %v", e.Cause)
	}
	if e.Exit != "" {
		text += fmt.Sprintf(" (%s)", e.Exit)
	}
	if e.Stderr != "" {
		text += ", it said: " + e.Stderr
	}
	return text
}

// lastLine is what a command said last, without its name before it.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimPrefix(text[strings.LastIndexByte(text, '\n')+1:], "triptych: ")
}

// Unwrap gives the cause.
func (e *StartError) Unwrap() error { return e.Cause }

// errStartTimeout is the cause of a launch context that ran out of StartTimeout.
var errStartTimeout = errors.New("start timeout")

// Launch starts a child and returns when it has answered the handshake. The caller must Kill every
// child, also one that has exited. Errors are a *StartError, or ctx's when ctx ended first; nothing
// is left of the child then. ctx is for the launch alone.
func Launch(ctx context.Context, o Options) (*Child, error) {
	if len(o.Command) == 0 {
		return nil, &StartError{Kind: o.Kind, Cause: errors.New("the command is empty")}
	}
	if err := CheckTempDir(); err != nil {
		return nil, &StartError{Kind: o.Kind, Command: o.Command, Refused: true, Cause: err}
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = DefaultStartTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	launch, cancel := context.WithTimeoutCause(ctx, o.StartTimeout, errStartTimeout)
	defer cancel()

	own, err := newCredentials()
	if err != nil {
		return nil, &StartError{Kind: o.Kind, Command: o.Command, Cause: err}
	}
	c := newChild(launch, o, own)
	if err = c.start(); err == nil {
		return c, nil
	}
	c.Kill()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("launch the %v runtime: %w", o.Kind, context.Cause(ctx))
	}
	failure := &StartError{Kind: o.Kind, Command: o.Command, Stderr: c.tail.String(), Cause: err}
	if errors.Is(context.Cause(launch), errStartTimeout) {
		failure.Timeout = o.StartTimeout
	}
	if c.process != nil && c.process.started() {
		failure.Exit = c.process.exit()
		failure.Refused = c.process.cmd.ProcessState.ExitCode() == ExitRefused
	}
	return nil, failure
}

// newChild prepares everything but starts nothing.
func newChild(launch context.Context, o Options, own credentials) *Child {
	c := &Child{kind: o.Kind}
	logger := newHCLog(o.Logger.With("stage", o.Kind.String()))
	stray := logger.Named("output").StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug})
	c.client = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  handshake,
		Plugins:          wire{kind: o.Kind}.plugins(),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		TLSConfig:        own.config(),
		GRPCDialOptions:  []grpc.DialOption{grpc.WithIdleTimeout(0)}, // the connection cannot be made again, see Child.start
		StartTimeout:     o.StartTimeout + spareTime,
		Logger:           logger,
		Stderr:           &c.tail,
		// What the child writes to os.Stdout and os.Stderr once it serves comes this way.
		SyncStdout: stray,
		SyncStderr: stray,
		RunnerFunc: func(_ hclog.Logger, spec *exec.Cmd, socketDir string) (runner.Runner, error) {
			env := append(spec.Env, o.Env...)
			c.process = newProcess(launch, o.Command, append(env, kindKey+"="+o.Kind.String()), own.line())
			c.socketDir = socketDir
			return c.process, nil
		},
	})
	return c
}
