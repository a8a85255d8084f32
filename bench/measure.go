package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/bench/kernels"
	"github.com/triptych-serving/triptych/bench/limits"
	"github.com/triptych-serving/triptych/bench/networks"
	"github.com/triptych-serving/triptych/bench/randommodel"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// The parts of a measurement. The limits of the machine are always measured.
const (
	partKernels  = "kernels"
	partNetworks = "networks"
	partStart    = "start"
	partLoad     = "load"
)

// cacheFolder is where what is made once is kept by default.
var cacheFolder = filepath.Join("bench", ".cache")

// options are the command line of a measurement.
type options struct {
	parts, models, peers []string
	run                  *regexp.Regexp
	threads, reps        int
	rowTime, longest     time.Duration
	networkTime          time.Duration
	all                  bool
	python, folder       string
	random               map[string]*string // the folders of the models in sized
	cache                string
	name, results        string
	profiles             string
}

func parse(args []string) (options, error) {
	var o options
	var parts, models, peers, run string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&parts, "parts", strings.Join([]string{partKernels, partNetworks, partStart, partLoad}, ","), "what is measured beside the limits of the machine")
	flags.StringVar(&models, "models", "starter", "models of networks and load: starter, sd15 (random weights of that size, 2.1 GB), sdxl (likewise, 6.9 GB), esrgan (likewise, 33 MB)")
	flags.StringVar(&run, "run", "", "measure only the rows whose name matches this regular expression")
	flags.IntVar(&o.threads, "threads", min(2, runtime.GOMAXPROCS(0)), "threads that compute, on every side")
	flags.DurationVar(&o.rowTime, "kernel-time", 600*time.Millisecond, "time for the repetitions of a kernel")
	flags.DurationVar(&o.longest, "kernel-longest", 4*time.Second, "leave out kernels that would take longer at the machine's peak")
	flags.BoolVar(&o.all, "all", false, "every shape of bench/kernels/shapes.json, not only the main ones, however long it takes")
	flags.IntVar(&o.reps, "reps", 10, fmt.Sprintf("repetitions of a network at most, %d at least", networks.MinReps))
	flags.DurationVar(&o.networkTime, "network-time", time.Minute, "time for the repetitions of a network on each side")
	flags.StringVar(&o.python, "python", "", "Python that has the modules of requirements.txt; empty measures no peers")
	flags.StringVar(&o.folder, "peer-folder", filepath.Join("bench", "peers"), "folder of the peers' programs")
	flags.StringVar(&peers, "peers", "", "names of peers, separated by commas, each in all types that it computes in or, as eager:f32, in one; empty takes all of the folder")
	o.random = map[string]*string{}
	for name := range sized {
		o.random[name] = flags.String(name, filepath.Join(cacheFolder, name), "folder of the model "+name+", which is written if it is not there")
	}
	flags.StringVar(&o.cache, "cache", cacheFolder, "folder for what is made once")
	flags.StringVar(&o.name, "name", "", "also write the report to results/NAME.json")
	flags.StringVar(&o.results, "results", filepath.Join("bench", "results"), "folder of that file")
	flags.StringVar(&o.profiles, "profiles", "", "folder for CPU profiles of our side")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, errUsage
	}
	if o.threads < 1 || o.reps < 1 {
		return o, errors.New("-threads and -reps must be at least 1")
	}
	var err error
	if run != "" {
		if o.run, err = regexp.Compile(run); err != nil {
			return o, err
		}
	}
	if o.parts, err = oneOf("-parts", parts, partKernels, partNetworks, partStart, partLoad); err != nil {
		return o, err
	}
	if o.models, err = oneOf("-models", models, "starter", "sd15", "sdxl", "esrgan"); err != nil {
		return o, err
	}
	if peers != "" {
		o.peers = strings.Split(peers, ",")
	}
	return o, nil
}

// oneOf splits a list and checks its elements.
func oneOf(flag, list string, known ...string) ([]string, error) {
	var out []string
	for _, v := range strings.Split(list, ",") {
		if v == "" {
			continue
		}
		if !slices.Contains(known, v) {
			return nil, fmt.Errorf("%s %q: expected some of %s", flag, v, strings.Join(known, ","))
		}
		out = append(out, v)
	}
	return out, nil
}

// measure does what the flags ask for and prints the tables. A measurement that is interrupted or fails prints what it
// has.
func measure(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if _, err := os.Stat("go.mod"); errors.Is(err, fs.ErrNotExist) {
		return errors.New("run it from the root of the repository, as `make bench` does")
	}
	if err := os.MkdirAll(o.cache, 0o750); err != nil {
		return err
	}
	stop, err := startProfile(o.profiles, "bench")
	if err != nil {
		return err
	}
	r := &report{
		Date: time.Now().Format(time.RFC3339), Machine: limits.ThisMachine(), Threads: o.threads, Arguments: args,
		Versions: versions(ctx), Environment: environment(),
	}
	err = r.fill(ctx, o)
	r.Machine.LoadAfter = limits.LoadAverage()
	fmt.Print(r.markdown())
	if o.name != "" {
		err = errors.Join(err, r.write(filepath.Join(o.results, filepath.Base(o.name)+".json")))
	}
	return errors.Join(err, stop())
}

// fill measures the parts.
func (r *report) fill(ctx context.Context, o options) (err error) {
	log := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
	}
	log("limits of the machine")
	if r.Limits, err = limits.Measure(ctx, o.threads); err != nil {
		return err
	}
	models, err := o.openModels()
	if err != nil {
		return err
	}
	pipelines := slices.DeleteFunc(slices.Clone(models), func(m networks.Model) bool { return m.Name == "esrgan" })
	if err := r.disk(pipelines[len(pipelines)-1]); err != nil {
		return err
	}
	if slices.Contains(o.parts, partKernels) {
		k := kernels.Options{Threads: o.threads, Run: o.run, All: o.all, Time: o.rowTime, Longest: o.longest}
		if r.Kernels, err = kernels.Measure(ctx, k, &r.Limits, func(row kernels.Row) { log("%s: %.2f ms", row.Name, row.Ms.Min) }); err != nil {
			return err
		}
	}
	n, err := o.networks(ctx, log)
	if err != nil {
		return err
	}
	triptych := filepath.Join(o.cache, "triptych")
	if slices.Contains(o.parts, partNetworks) || slices.Contains(o.parts, partStart) {
		build := exec.CommandContext(ctx, "go", "build", "-o", triptych, "./cmd/triptych")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build ./cmd/triptych: %w", err)
		}
	}
	if slices.Contains(o.parts, partNetworks) {
		if err := r.networks(ctx, n, models, triptych); err != nil {
			return err
		}
	}
	if slices.Contains(o.parts, partStart) && o.wants("start") {
		row, err := networks.MeasureStart(ctx, n, triptych, models[0])
		if err != nil {
			return err
		}
		r.Start = &row
	}
	if slices.Contains(o.parts, partLoad) && o.wants("load") {
		for _, m := range pipelines {
			rows, err := networks.MeasureLoad(ctx, n, m, r.Limits)
			r.Loads = append(r.Loads, rows...)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (o options) wants(row string) bool { return o.run == nil || o.run.MatchString(row) }

// openModels finds the models, writing random ones that are not there. The starter comes first.
func (o options) openModels() ([]networks.Model, error) {
	out := []networks.Model{{Name: "starter", Path: filepath.Join("models", "starter")}}
	for _, name := range slices.Sorted(maps.Keys(sized)) {
		if !slices.Contains(o.models, name) {
			continue
		}
		dir := *o.random[name]
		if !randommodel.Complete(dir) {
			if err := writeRandomModel(name, dir, ""); err != nil {
				return nil, err
			}
		}
		out = append(out, networks.Model{Name: name, Path: dir})
	}
	if slices.Contains(o.models, "esrgan") {
		path := filepath.Join(o.cache, "esrgan")
		if !randommodel.Complete(path) {
			if err := randommodel.WriteESRGAN(path); err != nil {
				return nil, err
			}
		}
		out = append(out, networks.Model{Name: "esrgan", Path: path})
	}
	return out, nil
}

// networks are the options of that part.
func (o options) networks(ctx context.Context, log func(string, ...any)) (networks.Options, error) {
	self, err := os.Executable()
	if err != nil {
		return networks.Options{}, err
	}
	n := networks.Options{Threads: o.threads, Run: o.run, Reps: o.reps, Time: o.networkTime, Self: []string{self, "serve"}, Cache: o.cache, Log: log}
	if o.profiles != "" {
		n.Self = append(n.Self, "-profiles", o.profiles)
	}
	if o.python != "" {
		n.Peers, err = networks.PythonPeers(ctx, o.python, o.folder, o.cache, o.peers)
	}
	return n, err
}

// disk measures the sequential read of the largest weight file.
func (r *report) disk(m networks.Model) error {
	path := filepath.Join(m.Path, "unet", "diffusion_pytorch_model.safetensors")
	bytes, seconds, err := limits.DiskRead(path)
	if err != nil || seconds == 0 {
		return err
	}
	r.Limits.DiskBytes, r.Limits.DiskRead = bytes, float64(bytes)/seconds/1e9
	return nil
}

// networks measures the rows of the models; images also through the services.
func (r *report) networks(ctx context.Context, o networks.Options, models []networks.Model, triptych string) error {
	for _, m := range models {
		list := networks.Starter(m)
		switch m.Name {
		case "sd15":
			list = networks.SD15(m)
		case "sdxl":
			list = networks.SDXL(m)
		case "esrgan":
			list = networks.ESRGAN(m)
		}
		rows, err := networks.Measure(ctx, o, list, networks.Services(triptych), &r.Limits)
		r.Networks = append(r.Networks, rows...)
		if err != nil {
			return err
		}
	}
	return nil
}

// versions tells what was measured.
func versions(ctx context.Context) map[string]string {
	out := map[string]string{"go": runtime.Version(), "kernel": kernel.Variant()}
	if v, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
		out["triptych"] = strings.TrimSpace(string(v))
	}
	return out
}

// environment is what is set of the variables that change how threads wait and which kernels run.
func environment() map[string]string {
	out := map[string]string{}
	for _, name := range []string{"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "GOGC", "GOMAXPROCS", kernel.Env} {
		if v, ok := os.LookupEnv(name); ok {
			out[name] = v
		}
	}
	return out
}
