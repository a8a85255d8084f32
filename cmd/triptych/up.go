package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/internal/local"
	"github.com/triptych-serving/triptych/internal/rpcserver"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// stackFlags configure Triptych on this machine.
type stackFlags struct {
	device  string
	budget  byteSize
	warm    byteSize // of commands that have it
	models  []string
	vaes    vaeFiles
	threads int
	weights weightFlags
	release releaseFlags // of commands that have them
	share   shareFlags   // likewise

	orchestratorArgs []string
}

// runtime is the flags of a stage's process.
func (f *stackFlags) runtime(logs logFlags, models ...string) runtimeFlags {
	return runtimeFlags{models: models, vaes: f.vaes, device: f.device, budget: f.budget, warm: f.warm, threads: f.threads, weights: f.weights, release: f.release, share: f.share, logs: logs}
}

func (f *stackFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	deviceFlag(flags, &f.device)
	flags.Var(&f.budget, "memory-budget", "bytes the three stages may hold together, such as 64MiB; no limit without")
	modelsFlag(flags, &f.models)
	f.vaes.add(flags)
	f.weights.add(flags)
	flags.IntVar(&f.threads, "threads", 0, "threads that compute in each stage; the stages of an image work one after the other, so each may use all (default: the processors that affinity and cgroup limits leave)")
}

// start starts the processes; extraModels are added to the models.
func (f *stackFlags) start(listen, metrics string, logs logFlags, stderr io.Writer, log *slog.Logger, extraModels ...string) (*local.Stack, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	stages := f.runtime(logs, append(f.models, extraModels...)...)
	if err := stages.check(); err != nil { // told once, here, and not by three processes
		return nil, err
	}
	drain := []string{"--" + drainTimeout, stackDrainTimeout.String()}
	s, err := local.Start(local.Options{
		Program: program, Listen: listen, MetricsListen: metrics, Stderr: stderr, Logger: log,
		StageArgs:        func(kind stage.Kind) []string { return append(stages.args(kind), drain...) },
		OrchestratorArgs: slices.Concat(logs.args(), f.orchestratorArgs, drain),
	})
	return s, listenError(err)
}

// stackDrainTimeout is how long each process may take to end behind ctrl-C, when somebody waits.
const stackDrainTimeout = 5 * time.Second

func upCommand() *cobra.Command {
	var (
		stack   stackFlags
		logs    logFlags
		memory  memoryFlags
		listen  string
		metrics string
	)
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run the orchestrator and the three services on this machine until ctrl-C",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logs.logger()
			if err != nil {
				return err
			}
			if err := checkAddress("listen", listen); err != nil {
				return err
			}
			if metrics != "" {
				if err := checkAddress(metricsListen, metrics); err != nil {
					return err
				}
			}
			if _, err := memory.parse(); err != nil {
				return err
			}
			stack.orchestratorArgs = memory.args()
			s, err := stack.start(listen, metrics, logs, cmd.ErrOrStderr(), log)
			if err != nil {
				return err
			}
			ctx, cancel := whileRunning(cmd.Context(), s)
			defer cancel()
			out := cmd.OutOrStdout()
			if s.AwaitServing(ctx) == nil {
				for _, kind := range stage.Kinds() {
					fmt.Fprintf(out, "%-13s %s\n", kind, s.Address(kind.String()))
				}
				fmt.Fprintf(out, "%-13s %s\n", local.Orchestrator, s.Address(local.Orchestrator))
				if metrics != "" {
					fmt.Fprintf(out, "%-13s http://%s/metrics\n", local.Metrics, s.Address(local.Metrics))
				}
				if err := printExamples(ctx, out, s.Address(local.Orchestrator)); err != nil {
					log.Warn("no example can be given", "error", err)
				}
				fmt.Fprint(out, "\nctrl-C stops everything.\n")
			}
			<-ctx.Done()
			fmt.Fprintln(out, "stopping")
			err = s.Stop()
			if cause := context.Cause(ctx); cmd.Context().Err() == nil {
				err = errors.Join(cause, err)
			}
			return err
		},
	}
	stack.add(cmd)
	stack.release.add(cmd.Flags())
	warmFlag(cmd.Flags(), &stack.warm)
	stack.share.add(cmd.Flags())
	logs.add(cmd.Flags(), "info")
	memory.add(cmd.Flags())
	cmd.Flags().StringVar(&listen, "listen", defaultListen, "address of the orchestrator, host:port; port 0 takes a free one")
	cmd.Flags().StringVar(&metrics, metricsListen, "", metricsUsage)
	return cmd
}

// printExamples tells how to have an image made of a model that the server has.
func printExamples(ctx context.Context, out io.Writer, address string) error {
	ctx, cancel := context.WithTimeout(ctx, exampleWait)
	defer cancel()
	conn, err := dial(address, rpcserver.ClientTLS{})
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it was only asked
	models, err := readyModels(ctx, conn)
	if err != nil {
		return err
	}
	usable := slices.DeleteFunc(slices.Clone(models), func(m *triptychv1alpha1.Model) bool { return m.GetProblem() != "" })
	if len(usable) == 0 {
		_, err := fmt.Fprint(out, "\nNone of the models can be used; `triptych models` tells why.\n")
		return err
	}
	spec, flag := map[string]string{"prompt": examplePrompt}, ""
	if len(models) > 1 { // the only one needs no name
		model := usable[0].GetName()
		if slices.ContainsFunc(usable, func(m *triptychv1alpha1.Model) bool { return m.GetName() == defaultModel }) {
			model = defaultModel
		}
		spec["model"], flag = model, " --model "+shellQuote(model)
	}
	request, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\nTry it:\n  triptych generate --server %s%s \"%s\" -o face.png\n  grpcurl -plaintext -d %s %s triptych.v1alpha1.GenerationService/Generate\n",
		address, flag, examplePrompt, shellQuote(string(request)), address)
	return err
}

const examplePrompt = "cool face on a pink background"

// exampleWait is how long a server that has just started may take to find its stages, before no example is given.
const exampleWait = 10 * time.Second

// shellQuote makes one word of text for a shell.
func shellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// whileRunning returns a context that ends when a process of the stack is given up, with that as its
// cause.
func whileRunning(ctx context.Context, s *local.Stack) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case err := <-s.Failed():
			cancel(err)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}
