// Command triptych is all of Triptych in one binary: `triptych up` runs everything on this machine,
// `triptych generate` makes one image, and the other commands run one part each. This package is
// wiring only.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/internal/local"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageplugin"
)

// Exit codes. Bad usage is a command or a request that is wrong: trying again does not help, which
// is also what a process says to the stack that would start it again.
const (
	exitFailed      = 1 // it was tried and did not work
	exitUsage       = local.ExitHopeless
	exitRefused     = 3   // it cannot be done here or now: not enough memory, too many requests
	exitInterrupted = 130 // as shells have it for ctrl-C
)

func main() { os.Exit(run()) }

func run() int {
	ctx := context.Background()
	if stageplugin.IsChild() {
		signal.Ignore(syscall.SIGTERM) // which some tell all processes: a runtime ends when its service has drained
	} else {
		signalled, stop := untilSignal(ctx)
		defer stop()
		supervised, release, err := local.Supervised(signalled)
		if err != nil {
			fmt.Fprintln(os.Stderr, "triptych:", err)
			return exitFailed
		}
		defer release()
		ctx = supervised
	}
	root, out := rootCommand(), &sticky{w: os.Stdout}
	root.SetOut(out)
	err := root.ExecuteContext(ctx)
	if out.err != nil && !errors.Is(err, out.err) {
		err = errors.Join(err, out.err)
	}
	code := exitCode(ctx, err)
	switch {
	case err == nil:
	case code == exitInterrupted && errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "triptych: cancelled")
	default:
		fmt.Fprintln(os.Stderr, "triptych:", err)
	}
	return code
}

// sameSignal is within how long signals are one: timeout sends its own to the process and to the group that it is in.
const sameSignal = 100 * time.Millisecond

// untilSignal ends with the first signal that asks the process to end. A later one ends the process at once.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		untilTwice(signals, cancel)
		fmt.Fprintln(os.Stderr, "triptych: asked to end twice, ending at once")
		os.Exit(exitInterrupted)
	}()
	return ctx, cancel
}

// untilTwice cancels with the first signal, and returns with the next one that is another.
func untilTwice(signals <-chan os.Signal, cancel func()) {
	<-signals
	cancel()
	for first := time.Now(); time.Since(first) <= sameSignal; {
		<-signals
	}
}

// sticky is standard output; after an error it takes nothing more, and the error is the command's.
type sticky struct {
	w   io.Writer
	err error
}

// Write implements io.Writer.
func (s *sticky) Write(data []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.w.Write(data)
	if err != nil {
		s.err = fmt.Errorf("standard output: %w", err)
	}
	return n, s.err
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "triptych",
		Short:         "Diffusion models served as three stages inside a memory budget",
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q, see triptych --help", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{flagError(err)} })
	root.AddCommand(generateCommand(), upscaleCommand(), upCommand(), orchestratorCommand(), modelsCommand(), planCommand(), simulateCommand(), traceCommand(), topCommand(), inspectCommand(), fetchCommand(), cacheCommand(), versionCommand(), runtimeCommand())
	for _, kind := range stage.Kinds() {
		root.AddCommand(stageCommand(kind))
	}
	root.Version = versionLine()
	root.SetVersionTemplate("{{.Version}}\n")
	complete(root, completions())
	return root
}

// usageError is a command line that is wrong.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitCode sorts an error by what the user can do about it.
func exitCode(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	if usage := (usageError{}); errors.As(err, &usage) {
		return exitUsage
	}
	if refused := (*stageplugin.StartError)(nil); errors.As(err, &refused) && refused.Refused {
		return exitUsage
	}
	if gone := (*local.GivenUpError)(nil); errors.As(err, &gone) && gone.Code == exitUsage {
		return exitUsage
	}
	switch stage.ReasonOf(err) {
	case stage.InvalidField, stage.SamplerUnsupported, stage.SizeUnsupported, stage.ModelNotFound:
		return exitUsage
	case stage.ModelDoesNotFit, stage.ModelInvalid, stage.QueueFull, stage.DiskFull:
		return exitRefused
	}
	if ctx.Err() != nil {
		return exitInterrupted
	}
	return exitFailed
}
