package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/engine/device/devices"
	"github.com/triptych-serving/triptych/families"
	"github.com/triptych-serving/triptych/internal/cpulimit"
	"github.com/triptych-serving/triptych/internal/deviceclaim"
	"github.com/triptych-serving/triptych/internal/local"
	"github.com/triptych-serving/triptych/internal/rpcserver"
	"github.com/triptych-serving/triptych/services/decoder"
	"github.com/triptych-serving/triptych/services/denoiser"
	"github.com/triptych-serving/triptych/services/encoder"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
	"github.com/triptych-serving/triptych/stage/stageplugin"
)

// runtimeFlags say what a runtime process loads and where. A service takes the same flags and hands
// them to its runtime.
type runtimeFlags struct {
	models  []string
	vaes    vaeFiles
	device  string
	budget  byteSize
	warm    byteSize
	threads int
	logs    logFlags
	weights weightFlags
	release releaseFlags
	share   shareFlags
	refuse  func(bytes int64) error // no flag: see faults
}

const defaultDevice = "cpu:0"

func deviceFlag(flags *pflag.FlagSet, name *string) {
	flags.StringVar(name, "device", defaultDevice, "device to compute on; stages on one device of one host share its memory budget")
}

func (f *runtimeFlags) add(flags *pflag.FlagSet) {
	modelsFlag(flags, &f.models)
	f.vaes.add(flags)
	deviceFlag(flags, &f.device)
	flags.Var(&f.budget, "memory-budget", "bytes that the stages on the device may hold together, such as 64MiB; no limit without")
	warmFlag(flags, &f.warm)
	f.share.add(flags)
	f.weights.add(flags)
	f.release.add(flags)
	flags.IntVar(&f.threads, "threads", 0, "threads that compute (default: the processors that affinity and cgroup limits leave to the process)")
	f.logs.add(flags, "info")
}

// args are the flags on a command line again, for the service or runtime of a stage.
func (f *runtimeFlags) args(kind stage.Kind) []string {
	args := append(f.logs.args(), "--device", f.device, "--threads", fmt.Sprint(f.threads))
	if f.budget > 0 {
		args = append(args, "--memory-budget", fmt.Sprint(int64(f.budget)))
	}
	if f.warm > 0 {
		args = append(args, "--warm-memory", fmt.Sprint(int64(f.warm)))
	}
	args = append(args, f.share.args()...)
	args = append(args, f.weights.args(kind)...)
	args = append(args, f.release.args(kind)...)
	for _, dir := range f.models {
		args = append(args, "--models", dir)
	}
	return append(args, f.vaes.args()...)
}

// check refuses flags that no runtime can start with.
func (f *runtimeFlags) check() error {
	if err := stageplugin.CheckTempDir(); err != nil {
		return usageError{err}
	}
	if err := f.share.check(); err != nil {
		return err
	}
	_, closeDevice, err := f.open()
	if err != nil {
		return err
	}
	return closeDevice()
}

// options opens the models and tells what the device is to be opened or planned with.
func (f *runtimeFlags) options() (o stageengine.Options, hardware devices.Options, err error) {
	library, err := openLibrary(f.vaes, f.models...)
	if err != nil {
		return o, hardware, err
	}
	if f.threads < 0 || f.threads > devices.MaxThreads {
		return o, hardware, usageError{fmt.Errorf("--threads %d: expected 1 to %d, or 0 for the default", f.threads, devices.MaxThreads)}
	}
	threads := f.threads
	if threads == 0 {
		threads = cpulimit.Processors()
	}
	if threads > runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(threads)
	}
	o = stageengine.Options{
		Library: library, Families: families.All(), Host: f.share.host, Version: version(),
		Precision: f.weights.precision.values, Compute: f.weights.compute.values, ResidentBytes: f.weights.residentBytes(), WarmBytes: int64(f.warm),
	}
	return o, devices.Options{Threads: threads, MemoryCapBytes: int64(f.budget), Refuse: f.refuse}, nil
}

// open opens the models and the device, which the caller must close.
func (f *runtimeFlags) open() (stageengine.Options, func() error, error) {
	o, hardware, err := f.options()
	if err != nil {
		return o, nil, err
	}
	name, err := devices.Name(f.device)
	if err != nil {
		return o, nil, usageError{err}
	}
	closeClaim := func() error { return nil }
	if dir := f.share.directory(f.budget); dir != "" {
		claim, err := f.share.open(dir, name, f.budget)
		switch {
		case errors.Is(err, deviceclaim.ErrLocked):
			return o, nil, err // it may come right
		case err != nil:
			return o, nil, usageError{fmt.Errorf("%w; choose another --device-claims, or %s", err, claimOff)}
		}
		o.Claim, hardware.Claim, closeClaim = claim, claim, claim.Close
	}
	if o.Device, err = devices.Open(name, hardware); err != nil {
		return o, nil, usageError{errors.Join(err, closeClaim())}
	}
	if err := f.weights.check(o.Device); err != nil {
		return o, nil, errors.Join(err, o.Device.Close(), closeClaim())
	}
	return o, func() error { return errors.Join(o.Device.Close(), closeClaim()) }, nil
}

// stageCommand serves one stage.
func stageCommand(kind stage.Kind) *cobra.Command {
	var (
		listen = listenFlags{name: "listen"}
		flags  runtimeFlags
		life   lifeFlags
		tls    rpcserver.TLS
	)
	cmd := &cobra.Command{
		Use:   kind.String(),
		Short: fmt.Sprintf("Serve the %v stage", kind),
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := flags.logs.logger()
			if err != nil {
				return err
			}
			if err := errors.Join(flags.weights.only(kind), flags.release.only(kind)); err != nil {
				return err
			}
			health, end, err := life.begin(log)
			if err != nil {
				return err
			}
			defer end()
			if err := flags.check(); err != nil { // told here, not by a child that cannot start
				return err
			}
			defer holdLeases(flags.models, log)()
			program, err := os.Executable()
			if err != nil {
				return err
			}
			lis, err := listen.listen()
			if err != nil {
				return err
			}
			o := encoder.Options{
				Command: append([]string{program, "runtime", kind.String()}, flags.args(kind)...), TLS: tls, Owner: local.OwnerOf(cmd.Context()), Logger: log,
				Health: health, DrainTimeout: life.drain,
			}
			return serveStage(cmd.Context(), kind, o, lis)
		},
	}
	listen.add(cmd.Flags(), "127.0.0.1:0", "address to listen on, host:port; port 0 takes a free one")
	flags.add(cmd.Flags())
	life.add(cmd.Flags())
	tlsFlags(cmd.Flags(), &tls)
	return cmd
}

// serveStage runs the service of a kind, all of which take the same options.
func serveStage(ctx context.Context, kind stage.Kind, o encoder.Options, lis net.Listener) error {
	service, err := map[stage.Kind]func(encoder.Options) (*encoder.Service, error){
		stage.KindEncoder: encoder.New, stage.KindDenoiser: denoiser.New, stage.KindDecoder: decoder.New,
	}[kind](o)
	if err != nil {
		return errors.Join(usageError{err}, lis.Close())
	}
	return service.Run(ctx, lis)
}

// runtimeCommand is the child of a service: it holds the weights of one stage.
func runtimeCommand() *cobra.Command {
	var flags runtimeFlags
	cmd := &cobra.Command{
		Use:    "runtime encoder|denoiser|decoder",
		Short:  "Hold the weights of one stage for the service that started this process",
		Hidden: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("expected one stage, got %d arguments", len(args))}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			kind, ok := stage.ParseKind(args[0])
			if !ok {
				return usageError{fmt.Errorf("%q is not a stage, expected encoder, denoiser or decoder", args[0])}
			}
			if err := errors.Join(flags.weights.only(kind), flags.release.only(kind)); err != nil {
				return err
			}
			level, err := flags.logs.parse()
			if err != nil {
				return err
			}
			log := stageplugin.NewChildLogger(level)
			if flags.refuse, err = faults(kind); err != nil {
				return err
			} else if flags.refuse != nil {
				log.Warn("allocations are made to fail, for a test", "by", faultsEnv)
			}
			o, closeDevice, err := flags.open()
			if err != nil {
				return err
			}
			defer closeDevice() //nolint:errcheck // the process ends
			collector := flags.release.collector(kind, o.Device, log)
			o.Released, o.Logger = collector.Released, log
			s := stageengine.New(kind, o)
			collector.Adapter = s.Adapter
			return stageplugin.Serve(kind, s, log, grpc.StatsHandler(collector))
		},
	}
	flags.add(cmd.Flags())
	return cmd
}
