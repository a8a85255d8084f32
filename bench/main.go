// Command bench times the stages of a model and a whole generation in this process, and beside it the same work by
// diffusers and PyTorch in a child process, the two by turns. See README.md.
//
// The package may import stage, stage/stageengine and the engine.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"
)

// options are the command line.
type options struct {
	model, python, script  string
	threads, reps, warmups int
	json                   bool
	name, results          string
	profile                string
}

func main() {
	var o options
	flag.StringVar(&o.model, "model", filepath.Join("models", "starter"), "folder of the model")
	flag.StringVar(&o.python, "python", "", "Python that has the modules of requirements.txt; empty measures no peer")
	flag.StringVar(&o.script, "peer", filepath.Join("bench", "peer.py"), "program of the peer")
	flag.IntVar(&o.threads, "threads", min(2, runtime.GOMAXPROCS(0)), "threads that compute, on both sides")
	flag.IntVar(&o.reps, "reps", 10, "repetitions")
	flag.IntVar(&o.warmups, "warmup", 2, "repetitions before them that do not count")
	flag.BoolVar(&o.json, "json", false, "write the report to a file as well")
	flag.StringVar(&o.name, "name", time.Now().Format("2006-01-02"), "name of that file, without .json")
	flag.StringVar(&o.results, "results", filepath.Join("bench", "results"), "folder of that file")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of our side to this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures and reports.
func run(ctx context.Context, o options) (err error) {
	if o.threads < 1 || o.reps < 1 || o.warmups < 0 {
		return errors.New("-threads and -reps must be at least 1, -warmup at least 0")
	}
	us, err := openEngine(ctx, o.model, o.threads)
	if err != nil {
		return fmt.Errorf("our side: %w (run it from the root of the repository, as `make bench` does)", err)
	}
	defer func() { err = errors.Join(err, us.close()) }()
	them, answer, problem := startPeer(ctx, o)
	if them != nil {
		defer them.close()
	}
	report := newReport(o, us)
	report.Peer.hello = answer
	if o.profile != "" {
		stop, err := startProfile(o.profile)
		if err != nil {
			return err
		}
		defer stop()
	}
	if problem, err = measure(ctx, o, us, them, problem, &report); err != nil {
		return err
	}
	if problem != nil {
		report.Peer.Problem = problem.Error()
	}
	report.finish(them)
	fmt.Print(report.table())
	if !o.json {
		return nil
	}
	data, err := json.MarshalIndent(report, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.results, 0o750); err != nil {
		return err
	}
	path := filepath.Join(o.results, filepath.Base(o.name)+".json")
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return err
	}
	fmt.Println("\nwritten to", path)
	return nil
}

// startProfile samples this process until the returned function is called.
func startProfile(path string) (stop func(), err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "bench: profile:", err)
		}
	}, nil
}
