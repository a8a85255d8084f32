package pipeline

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// How a turn is tried again: the pause doubles, and a stage that is lost so often under the work
// without its getting further is not to be asked again: the work itself may be what ends it. What a stage has is heard of
// within a second, so that work which is refused its bytes so often is refused them for another reason than a race.
const (
	firstPause  = 50 * time.Millisecond
	lastPause   = 2 * time.Second
	maxDeaths   = 5
	maxRefusals = 30
)

// turn works once for a step, under a lease, and again for as long as what fails is the
// stage and not the work. A death that got
// further than the one before does not count against the stage. Work that finds the device out of memory is done
// once more when all that is idle there has been evicted, and work that gave no finite numbers once the weights have been read
// anew.
func (w *worker) turn(ctx context.Context, i int, work func(context.Context, *residency.Lease) error) error {
	t := w.steps[i].Turn
	// Only waiting ends with patience: the work in a stage that drains, say, is to end well.
	waiting, done := w.Fleet.Guard(ctx, t.Kind, w.Fleet.Parts(w.model, t), w.Patience)
	defer done()
	deaths, refusals, reached, pause := 0, 0, 0, firstPause
	failing := false // the stage was lost, and has not been granted since
	again := false   // the device ran out of memory
	anew := false    // the weights were not to be trusted
	for {
		granted, err := w.try(ctx, waiting, t, again, work)
		w.job.mu.Lock()
		mixed := w.mixed
		w.job.mu.Unlock()
		if err != nil && granted && !mixed && w.reached(i) == 0 {
			w.unmade(t)
		}
		failing = failing && !granted
		reason := stage.ReasonOf(err)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return w.Fleet.Ended(ctx, t.Kind, failing || reason == stage.StageUnreachable)
		case reason == stage.EngineOOMUnplanned && !again:
			again = true
			w.emit(Warning{Code: OutOfMemory, Message: fmt.Sprintf("%v; the work is tried once more without what is idle there", err)})
			continue
		case (reason == stage.NotFinite || reason == stage.ModelChanged && granted && !mixed && !w.hasMade(t)) && !anew:
			anew = true
			w.emit(Warning{Code: WeightsReread, Message: fmt.Sprintf("%v; the weights are read anew and the work is done once more", err)})
			continue
		case !lost(err) && (reason != stage.ModelChanged || granted):
			return err
		case waiting.Err() != nil:
			return w.Fleet.Ended(waiting, t.Kind, true)
		}
		failing = true
		warning := Warning{Code: StageRestarted, Message: fmt.Sprintf("%v; the work goes on from its last checkpoint", err)}
		switch {
		case reason == stage.ModelChanged:
			if deaths++; deaths == maxDeaths {
				return err
			}
			warning = Warning{Code: WeightsReread, Message: fmt.Sprintf("%v; the load is tried again", err)}
		case reason == stage.DeviceBusy:
			if refusals++; !granted || refusals == maxRefusals {
				return err
			}
			warning = Warning{Code: DeviceBusy, Message: fmt.Sprintf("%v; the work waits for them", err)}
		case reason == stage.RuntimeDied, granted && reason != stage.StageDraining:
			if deaths++; w.reached(i) > reached {
				deaths, reached, pause = 1, w.reached(i), firstPause
			}
			if deaths == maxDeaths {
				return err
			}
		}
		w.emit(warning)
		select {
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		case <-waiting.Done():
			return w.Fleet.Ended(waiting, t.Kind, true)
		}
	}
}

// try takes a lease, for which it waits no longer than waiting lasts, and works once: where the lease is, or elsewhere when the
// stage there falls silent. again is work that ran out of memory before.
func (w *worker) try(ctx, waiting context.Context, t stage.Turn, again bool, work func(context.Context, *residency.Lease) error) (granted bool, err error) {
	l, err := w.await(waiting, t, again)
	if err != nil {
		return false, err
	}
	for l != nil {
		l, err = w.hold(ctx, t, l, again, work)
	}
	return true, err
}

// await takes a lease, and tells the caller where it stands in the line, why no stage that could give one answers if none does, and
// louder when that lasts.
func (w *worker) await(ctx context.Context, t stage.Turn, again bool) (*residency.Lease, error) {
	absent := func() *stage.Error { return w.Fleet.Absent(t.Kind, w.Fleet.Parts(w.model, t)) }
	var mu sync.Mutex
	queued := Queued{Kind: t.Kind}
	tell := func(change func()) {
		mu.Lock()
		defer mu.Unlock()
		change()
		w.emit(queued)
	}
	defer w.Fleet.Explain(ctx, absent, func(why *stage.Error) {
		tell(func() { queued.Reason = lacking(why) })
	})()
	var warning sync.WaitGroup
	waited := make(chan struct{})
	warning.Go(func() {
		select {
		case <-waited:
		case <-time.After(fleet.Patience):
			if why := absent(); why != nil {
				w.emit(Warning{Code: StageSilent, Message: fmt.Sprintf("%v; the work waits", why)})
			}
		}
	})
	defer warning.Wait()
	defer close(waited)
	return w.acquire(ctx, t, again, func(position int) {
		tell(func() { queued.Position = position })
	})
}

// request is what the keeper is asked for a turn.
func (w *worker) request(t stage.Turn) residency.AcquireRequest {
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	return residency.AcquireRequest{Job: w.id, Need: w.need(t), Observer: residency.Observer{Event: w.decided}}
}

// acquire takes a lease. When the device is gone that the turn was planned for, it is planned anew for those that are there.
func (w *worker) acquire(ctx context.Context, t stage.Turn, again bool, position func(int)) (*residency.Lease, error) {
	for r := w.request(t); ; {
		r.Again = again
		r.Observer.Position = position
		r.Observer.Loading = func(loaded, total int64) { w.emit(Loading{Kind: t.Kind, LoadedBytes: loaded, TotalBytes: total}) }
		l, err := w.Keeper.Acquire(ctx, r)
		if stage.ReasonOf(err) != stage.ModelDoesNotFit {
			return l, err
		}
		asked := r.Need.Footprints
		w.replan(ctx, t)
		if r = w.request(t); reflect.DeepEqual(r.Need.Footprints, asked) {
			return nil, err
		}
	}
}

// hold works under a lease and gives it back. Work that was cut because its stage is silent is to be done again under the lease
// returned, which is of another one.
func (w *worker) hold(ctx context.Context, t stage.Turn, l *residency.Lease, again bool, work func(context.Context, *residency.Lease) error) (next *residency.Lease, err error) {
	if err := w.admits(ctx, t, l); err != nil {
		l.Unfinished()
		l.Release()
		return nil, err
	}
	call, cut := context.WithCancel(ctx)
	watching, stop := context.WithCancel(ctx)
	standby := make(chan *residency.Lease, 1)
	go func() { standby <- w.standby(watching, t, l.Stage, cut) }()
	start := time.Now()
	err = errPanic
	defer func() { // a panic must not keep the stages
		stop()
		next = <-standby
		moved := next != nil && ctx.Err() == nil && errors.Is(err, context.Canceled)
		if next != nil && !moved {
			next.Unfinished()
			next.Release()
			next = nil
		}
		cut()
		w.spent(t.Kind, l, time.Since(start))
		if !again && stage.ReasonOf(err) == stage.EngineOOMUnplanned {
			l.Exhausted()
		}
		if moved {
			w.release(call, l, err) // which has ended: nobody waits for a stage that is silent
			return
		}
		w.release(ctx, l, err)
		if err != nil && ctx.Err() != nil && w.Fleet.Mute(l.Stage) { // then that is why time ran out
			err = stage.Errorf(stage.StageUnreachable, "the %v at %s does not answer", t.Kind, l.Stage)
		}
	}()
	err = work(call, l)
	return nil, err
}

// standby takes a lease elsewhere while the stage at id, where the job works, is silent, and cuts the work when it has one. It
// returns that lease, or none when ctx has ended. The stage keeps what it holds, and the lease there, until it says that the work
// has ended, or is gone.
func (w *worker) standby(ctx context.Context, t stage.Turn, id residency.StageID, cut func()) *residency.Lease {
	for w.Fleet.AwaitMute(ctx, id) == nil {
		w.emit(Warning{Code: StageSilent, Message: fmt.Sprintf("the %v at %s has not answered for %v; the work waits for it, or for another that can take it", t.Kind, id, fleet.Patience)})
		silent, end := w.Fleet.Until(ctx, id, false)
		l, err := w.acquire(silent, t, false, func(position int) { w.emit(Queued{Kind: t.Kind, Position: position}) })
		if err == nil {
			end()
			w.emit(Warning{Code: StageRestarted, Message: fmt.Sprintf("the %v at %s does not answer; the work goes on from its last checkpoint at %s", t.Kind, id, l.Stage)})
			cut()
			return l
		}
		<-silent.Done() // also where nobody else can take it
		end()
	}
	return nil
}

// errPanic is what work has failed with that panicked.
var errPanic = errors.New("the work panicked")

// release gives a lease back, and tells what the work found out about the stage. Work that failed may still be under way
// there: the call of a caller who gives up returns at once, and the stage needs up to one evaluation of the network to
// notice. Then the lease stays until the stage says otherwise; release waits for that no longer than ctx lasts.
func (w *worker) release(ctx context.Context, lease *residency.Lease, err error) {
	if err == nil {
		lease.Release()
		return
	}
	lease.Unfinished()
	switch stage.ReasonOf(err) {
	case stage.RuntimeDied:
		lease.Lost()
	case stage.StageUnreachable, stage.StageDraining, stage.StageEvicted, stage.StageOwned:
		w.Fleet.Report(lease.Stage)
	case stage.DeviceBusy:
		lease.Crowded()
		w.Fleet.Ask(lease.Stage)
	case stage.NotFinite, stage.ModelChanged, stage.ModelInvalid: // which a file is that is cut while weights are streamed from it
		lease.Distrust(err.Error())
		lease.Settle(ctx)
		return
	default:
		lease.Settle(ctx)
		return
	}
	lease.Release()
}

// spent adds a turn's times and bytes to the usage of its stage.
func (w *worker) spent(kind stage.Kind, l *residency.Lease, running time.Duration) {
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	u := w.usage[kind]
	u.Compute = w.Fleet.Compute(l.Stage)
	u.Queued += l.Queued
	u.Loading += l.Loading
	u.Running += running
	u.WeightsBytes = max(u.WeightsBytes, l.Footprint.WeightsBytes())
	u.ScratchBytes = max(u.ScratchBytes, l.Footprint.ScratchBytes)
}

// decided passes on a decision about memory that the job caused.
func (w *worker) decided(e residency.Event) {
	w.job.mu.Lock()
	w.peak[e.Device] = max(w.peak[e.Device], e.UsedBytes)
	w.job.mu.Unlock()
	w.emit(Residency{Event: e})
}

// lost tells whether an error is about the stage: another try, here or on a replica, may succeed.
func lost(err error) bool {
	switch stage.ReasonOf(err) {
	case stage.RuntimeDied, stage.StageEvicted, stage.StageUnreachable, stage.StageDraining, stage.StageOwned, stage.DeviceBusy:
		return true
	}
	return false
}
