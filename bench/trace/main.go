// Command trace replays a generated trace of jobs over three models on a real `triptych up` under several budgets,
// and holds the ledger to what was measured: by the allocators of the runtimes, and in the resident memory of
// their processes. Run it from the root of the repository, as `make bench-trace` does.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/triptych-serving/triptych/bench/stack"
	"github.com/triptych-serving/triptych/internal/baseline"
	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "trace:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	jobs, clients, steps int
	seed                 uint64
	budgets              string
	every, margin        time.Duration
	cache, report        string
}

// models are the models of the trace by their names there, which say how large the generator takes them to be. Two
// are the starter, one under another name.
var models = map[string]string{"starter:a": "starter", "starter:b": "starter-b", "starter:c": "tiny-sd15"}

func run(ctx context.Context) error {
	var o options
	flag.IntVar(&o.jobs, "jobs", 200, "jobs of the trace")
	flag.IntVar(&o.clients, "clients", 4, "jobs at once; when one ends the next begins, whenever it was to come")
	flag.IntVar(&o.steps, "steps", 2, "steps of a job")
	flag.Uint64Var(&o.seed, "seed", 1, "equal seeds give equal traces")
	flag.StringVar(&o.budgets, "budgets", "45,60,80,110,45+60", "memory budgets, in percent of all weights and the largest scratch; with + warm memory likewise")
	flag.DurationVar(&o.every, "every", 5*time.Millisecond, "time between two looks at the processes")
	flag.DurationVar(&o.margin, "margin", 20*time.Millisecond, "how long nothing is decided before and after a look that counts as settled")
	flag.StringVar(&o.cache, "cache", filepath.Join("bench", ".cache"), "folder for what is made")
	flag.StringVar(&o.report, "report", "", "also write JSON to this file")
	flag.Parse()
	program := filepath.Join(o.cache, "triptych")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/triptych")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build ./cmd/triptych: %w", err)
	}
	mix, err := baseline.ParseMix("starter:a=2,starter:b,starter:c")
	if err != nil {
		return err
	}
	trace, err := baseline.Generate{Mix: mix, Jobs: o.jobs, Arrivals: baseline.Poisson, Load: 1, Seed: o.seed}.Trace()
	if err != nil {
		return err
	}
	folders, err := o.folders()
	if err != nil {
		return err
	}
	all, least, err := o.sizes(ctx, program, folders, trace)
	if err != nil {
		return err
	}
	r := &report{Date: time.Now().Format(time.RFC3339), Jobs: o.jobs, Clients: o.clients, Steps: o.steps, Seed: o.seed, AllBytes: all, LeastBytes: least}
	for _, percent := range strings.Split(o.budgets, ",") {
		budget, warm, _ := strings.Cut(percent, "+")
		p, err := strconv.ParseFloat(budget, 64)
		w, warmErr := strconv.ParseFloat(cmp.Or(warm, "0"), 64)
		if err != nil || warmErr != nil || p <= 0 || p > 1000 || w < 0 || w > 1000 {
			return fmt.Errorf("-budgets %q: expected percentages separated by commas, such as 40,110 or 40+60", o.budgets)
		}
		row, err := o.measure(ctx, program, folders, trace, p, int64(p/100*float64(all)), int64(w/100*float64(all)))
		if err != nil {
			return fmt.Errorf("budget %s %%: %w", percent, err)
		}
		fmt.Fprintf(os.Stderr, "%s budget %s %%: %.0f s\n", time.Now().Format(time.TimeOnly), percent, row.Seconds)
		r.Rows = append(r.Rows, row)
		if o.report != "" { // after every row: the next may take long
			if err := r.write(o.report); err != nil {
				return err
			}
		}
	}
	fmt.Print(r.markdown())
	return nil
}

// folders are those of the models, the copy of the starter made anew.
func (o options) folders() ([]string, error) {
	twin := filepath.Join(o.cache, "starter-b")
	if err := os.RemoveAll(twin); err != nil {
		return nil, err
	}
	return []string{"models/starter", twin, "testdata/golden/tiny-sd15"}, os.CopyFS(twin, os.DirFS("models/starter"))
}

// spec is the request of the n-th job. No prompt is like another: one that an encoder remembers takes less scratch than is
// reserved.
func (o options) spec(n int, j simulate.Job) *triptychv1alpha1.GenerationSpec {
	images, steps, seed := int32(j.Images), int32(o.steps), uint64(n)
	s := &triptychv1alpha1.GenerationSpec{Model: models[j.Model], Prompt: fmt.Sprintf("fox number %d", n), NegativePrompt: fmt.Sprintf("owl number %d", n), Steps: &steps, Seed: &seed, ImageCount: &images}
	if strings.HasPrefix(s.Model, "starter") {
		width, height := int32(j.WidthPx), int32(j.HeightPx)
		s.WidthPx, s.HeightPx = &width, &height
	}
	return s
}

// sizes are the bytes of all weights and the largest scratch, and the least a budget must hold, as jobs of the
// trace's models and sizes say without a budget.
func (o options) sizes(ctx context.Context, program string, folders []string, trace simulate.Trace) (all, least int64, err error) {
	s, err := stack.Start(program, folders)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	weights, scratch := map[string]int64{}, int64(0)
	asked := map[string]bool{}
	for _, j := range trace.Jobs {
		j.Images = 1
		key := fmt.Sprint(j.Model, j.WidthPx)
		if asked[key] {
			continue
		}
		asked[key] = true
		done, err := s.Generate(ctx, o.spec(0, j), nil)
		if err != nil {
			return 0, 0, err
		}
		for _, u := range done.GetStages() {
			weights[j.Model+u.GetStage()] = u.GetWeightsBytes()
			scratch = max(scratch, u.GetScratchBytes())
			least = max(least, u.GetWeightsBytes()+u.GetScratchBytes())
		}
	}
	for _, bytes := range weights {
		all += bytes
	}
	return all + scratch, least, nil
}

// measure replays the trace under one budget.
func (o options) measure(ctx context.Context, program string, folders []string, trace simulate.Trace, percent float64, budget, warm int64) (row row, err error) {
	s, err := stack.Start(program, folders, "--memory-budget", strconv.FormatInt(budget, 10), "--warm-memory", strconv.FormatInt(warm, 10))
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	followed, err := follow(s.Conn)
	if err != nil {
		return row, err
	}
	base, err := look(s.Runtimes)
	if err != nil {
		return row, errors.Join(err, followed.stop())
	}
	sampled, begin := startSampler(s.Runtimes, o.every), time.Now()
	err = o.replay(ctx, s, trace)
	took := time.Since(begin)
	samples, sampleErr := sampled.stop()
	// The last decisions are made after the last job ended: scratch comes back, prefetches nobody needs go.
	snapshot, settleErr := settle(ctx, s)
	if err := cmp.Or(err, sampleErr, settleErr, followed.stop()); err != nil {
		return row, err
	}
	row = newRow(percent, budget, took, base, samples, followed, o.margin)
	row.WarmBytes = warm
	row.Idle.Ledger = snapshot.GetDevices()[0].GetUsedBytes()
	for _, kind := range stage.Kinds() {
		used, peak, err := s.Allocated(ctx, kind)
		if err != nil {
			return row, err
		}
		row.Idle.Allocator += used
		row.Stages = append(row.Stages, stagePeak{Stage: kind.String(), Ledger: followed.peaks[kind.String()], Sure: followed.sure[kind.String()], Allocator: peak})
	}
	return row, nil
}

// replay runs the jobs in their order, so many at once.
func (o options) replay(ctx context.Context, s *stack.Stack, trace simulate.Trace) error {
	jobs, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	next := 0
	for range o.clients {
		jobs.Go(func() error {
			for {
				mu.Lock()
				n := next
				next++
				mu.Unlock()
				if n >= len(trace.Jobs) {
					return nil
				}
				if _, err := s.Generate(ctx, o.spec(n, trace.Jobs[n]), nil); err != nil {
					return err
				}
			}
		})
	}
	return jobs.Wait()
}

// settle waits until nothing is under way.
func settle(ctx context.Context, s *stack.Stack) (*triptychv1alpha1.ResidencySnapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		stream, err := triptychv1alpha1.NewResidencyServiceClient(s.Conn).WatchResidency(ctx, &triptychv1alpha1.WatchResidencyRequest{})
		if err != nil {
			return nil, err
		}
		news, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		now, busy := news.GetSnapshot(), false
		for _, v := range now.GetServices() {
			busy = busy || v.GetRequest() != 0
		}
		for _, c := range now.GetComponents() {
			busy = busy || c.GetState() != triptychv1alpha1.ComponentUse_STATE_RESIDENT && c.GetState() != triptychv1alpha1.ComponentUse_STATE_WARM
		}
		if !busy {
			return now, nil
		}
		if _, err := stream.Recv(); err != nil { // the next decision
			return nil, err
		}
	}
}
