// Package pipeline runs one request: it interprets the steps of its model's recipe.
//
// It takes a lease for each step, keeps the values that others take, and starts a step again from
// there when its stage is lost.
//
// The package may import stage, orchestrator/residency and orchestrator/fleet.
package pipeline

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// Pipeline is what jobs run on.
type Pipeline struct {
	Fleet  *fleet.Fleet
	Keeper *residency.Keeper
	// Patience is how long a job waits for a stage of which no service that has its components answers,
	// within its deadline.
	Patience time.Duration
	// CheckpointEveryNSteps is how much denoising a lost stage can cost.
	CheckpointEveryNSteps int
	// Evaluated hears how many evaluations of a model's network have ended since it heard last, from several goroutines; nil hears
	// nothing.
	Evaluated func(model string, n int)
}

// maxAhead is how many images of a job are begun behind the first that is not told of: decoders may be busy, and who is told slow.
const maxAhead = 4

// Run takes the steps of a planned job that have not ended and emits what happens, from several goroutines. It
// returns when no call of the job is left; what a stage still does for one that was cut off keeps its lease.
func (p *Pipeline) Run(ctx context.Context, id residency.JobID, job *Job, plan Plan, emit func(Event)) (Summary, error) {
	w := newWorker(p, id, job, plan, emit)
	defer p.Keeper.Forget(id)
	w.announce()
	start := time.Now()
	group, working := errgroup.WithContext(ctx)
	defer context.AfterFunc(working, w.wake)()
	for i := range w.steps {
		if !job.Done[i] {
			group.Go(func() error { return w.guarded(func() error { return w.take(working, i) }) })
		}
	}
	following, stop := context.WithCancel(working)
	var follower sync.WaitGroup
	follower.Go(func() { w.follow(following) })
	err := group.Wait()
	stop()
	follower.Wait()
	if w.panicked != nil {
		panic(w.panicked)
	}
	if err == nil && slices.Contains(job.Done, false) {
		err = ctx.Err()
	}
	if err != nil {
		return Summary{}, err
	}
	return w.summary(time.Since(start)), nil
}

// guarded ends the job when f panics, so that Run panics in its caller's goroutine.
func (w *worker) guarded(f func() error) (err error) {
	defer func() {
		if why := recover(); why != nil {
			w.job.mu.Lock()
			w.panicked = fmt.Sprintf("%v\n\n%s", why, debug.Stack())
			w.job.mu.Unlock()
			err = errPanic
		}
	}()
	return f()
}

// take takes a step once it can begin, unless the job has ended: why that is, a step tells that had begun.
func (w *worker) take(ctx context.Context, i int) error {
	w.job.mu.Lock()
	for ctx.Err() == nil && !w.begins(i) {
		w.news.Wait()
	}
	w.job.mu.Unlock()
	if ctx.Err() != nil {
		return nil
	}
	err := w.work(ctx, i)
	if err == nil {
		w.ended(i)
	}
	return err
}

// work does a step's work and hands on what it gives.
func (w *worker) work(ctx context.Context, i int) error {
	s, result := w.steps[i], stage.Result{}
	options, err := w.measured(ctx, s.Turn)
	if err != nil {
		return err
	}
	req := stage.WorkRequest{Turn: s.Turn.Name, Options: options.Of(s.Turn.Options), Seed: w.job.Spec.seed(s.Image)}
	progress := func(done, steps int) {
		w.emit(Progress{Kind: s.Turn.Kind, Turn: s.Turn.Name, Image: s.Image, Unit: s.Unit, Step: done, Steps: steps})
	}
	observer := stage.Observer{Unit: func(v stage.Value) { w.hand(s, v) }, Progress: func(done, steps int) {
		if done < steps { // the end is told with the result
			progress(done, steps)
		}
	}}
	denoises := s.Turn.Kind == stage.KindDenoiser
	if denoises {
		req.CheckpointEveryNSteps = w.CheckpointEveryNSteps
		observer.Checkpoint = func(c stage.Checkpoint) { w.checkpoint(i, &c) }
		if previews := w.previews(ctx, s); previews != nil {
			defer previews.close()
			req.PreviewEveryNSteps, observer.Preview = w.job.Spec.PreviewEveryNSteps, previews.offer
		}
	}
	err = w.turn(ctx, i, func(ctx context.Context, lease *residency.Lease) (err error) {
		req.Components, req.Resume, req.Values = lease.Components, w.resume(i), w.taken(s)
		if denoises {
			observer.Ready, observer.Progress = w.counted(i, lease, progress)
		} else {
			progress(0, 1)
		}
		result, err = w.Fleet.Stage(lease.Stage).Work(ctx, req, observer)
		if stage.ReasonOf(err) == stage.NotFinite {
			w.checkpoint(i, nil) // of the same weights
		}
		return err
	})
	if err != nil {
		return err
	}
	if !denoises {
		progress(1, 1)
	}
	for _, warning := range result.Warnings {
		w.emit(Warning{warning.Code, warning.Message})
	}
	for _, v := range result.Values {
		if v.Units == 0 {
			v.Unit, v.Units = s.Unit, unitsOf(req.Values)
		}
		w.hand(s, v)
	}
	return nil
}

// counted tells of the evaluations of a step under a lease.
func (w *worker) counted(i int, lease *residency.Lease, tell func(done, steps int)) (ready func(steps int), progress func(done, steps int)) {
	last := w.reached(i)
	ready = func(steps int) {
		lease.Progress(last, steps)
		tell(last, steps)
	}
	progress = func(done, steps int) {
		lease.Progress(done, steps)
		if w.Evaluated != nil {
			w.Evaluated(w.job.Spec.Model, done-last)
		}
		last = done
		tell(done, steps)
	}
	return ready, progress
}

// unitsOf is in how many units values come, 0 if they come whole.
func unitsOf(values stage.Values) (units int) {
	for _, v := range values {
		units = max(units, v.Units)
	}
	return units
}
