package pipeline

import (
	"context"
	"errors"
	"fmt"
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

// turn works once in a stage of a kind, under a lease, and again for as long as what fails is the
// stage and not the work. progress (which may be nil) tells how far the work got; a death that got
// further than the one before does not count against the stage. Work that finds the device out of memory is done
// once more when all that is idle there has been evicted, and work that gave no finite numbers once the weights have been read
// anew.
func (j *job) turn(ctx context.Context, kind stage.Kind, work func(context.Context, residency.StageID) error, progress func() int) error {
	// Only waiting ends with patience: the work in a stage that drains, say, is to end well.
	waiting, done := j.Fleet.Guard(ctx, kind, j.part(kind), j.Patience)
	defer done()
	deaths, refusals, reached, pause := 0, 0, 0, firstPause
	failing := false // the stage was lost, and has not been granted since
	again := false   // the device ran out of memory
	anew := false    // the weights were not to be trusted
	for {
		granted, err := j.try(ctx, waiting, kind, again, work)
		j.mu.Lock()
		mixed := j.mixed
		j.mu.Unlock()
		if err != nil && granted && !mixed && (progress == nil || progress() == 0) {
			j.unmade(kind)
		}
		failing = failing && !granted
		reason := stage.ReasonOf(err)
		switch {
		case err == nil:
			j.taken(kind)
			return nil
		case ctx.Err() != nil:
			return j.Fleet.Ended(ctx, kind, failing || reason == stage.StageUnreachable)
		case reason == stage.EngineOOMUnplanned && !again:
			again = true
			j.emit(Warning{Code: OutOfMemory, Message: fmt.Sprintf("%v; the work is tried once more without what is idle there", err)})
			continue
		case (reason == stage.NotFinite || reason == stage.ModelChanged && granted && !mixed && !j.made(kind)) && !anew:
			anew = true
			j.emit(Warning{Code: WeightsReread, Message: fmt.Sprintf("%v; the weights are read anew and the work is done once more", err)})
			continue
		case !lost(err) && (reason != stage.ModelChanged || granted):
			return err
		case waiting.Err() != nil:
			return j.Fleet.Ended(waiting, kind, true)
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
			if deaths++; progress != nil && progress() > reached {
				deaths, reached, pause = 1, progress(), firstPause
			}
			if deaths == maxDeaths {
				return err
			}
		}
		j.emit(warning)
		select {
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		case <-waiting.Done():
			return j.Fleet.Ended(waiting, kind, true)
		}
	}
}

// try takes a lease, for which it waits no longer than waiting lasts, and works once: where the lease is, or elsewhere when the
// stage there falls silent. again is work that ran out of memory before.
func (j *job) try(ctx, waiting context.Context, kind stage.Kind, again bool, work func(context.Context, residency.StageID) error) (granted bool, err error) {
	lease, err := j.await(waiting, kind, again)
	if err != nil {
		return false, err
	}
	for lease != nil {
		lease, err = j.hold(ctx, kind, lease, again, work)
	}
	return true, err
}

// await takes a lease, and tells the caller when it is long in coming because no stage that could give one answers.
func (j *job) await(ctx context.Context, kind stage.Kind, again bool) (*residency.Lease, error) {
	var warning sync.WaitGroup
	waited := make(chan struct{})
	warning.Go(func() {
		select {
		case <-waited:
		case <-time.After(fleet.Patience):
			if why := j.Fleet.Absent(kind, j.part(kind)); why != nil {
				j.emit(Warning{Code: StageSilent, Message: fmt.Sprintf("%v; the work waits", why)})
			}
		}
	})
	defer warning.Wait()
	defer close(waited)
	return j.acquire(ctx, kind, again)
}

func (j *job) acquire(ctx context.Context, kind stage.Kind, again bool) (*residency.Lease, error) {
	return j.Keeper.Acquire(ctx, residency.AcquireRequest{Job: j.id, Need: j.need(kind), Again: again, Observer: residency.Observer{
		Event:    j.decided,
		Position: func(position int) { j.emit(Queued{Kind: kind, Position: position}) },
		Loading:  func(loaded, total int64) { j.emit(Loading{Kind: kind, LoadedBytes: loaded, TotalBytes: total}) },
	}})
}

// hold works under a lease and gives it back. Work that was cut because its stage is silent is to be done again under the lease
// returned, which is of another one.
func (j *job) hold(ctx context.Context, kind stage.Kind, lease *residency.Lease, again bool, work func(context.Context, residency.StageID) error) (next *residency.Lease, err error) {
	if err := j.admits(ctx, kind, lease); err != nil {
		lease.Unfinished()
		lease.Release()
		return nil, err
	}
	call, cut := context.WithCancel(ctx)
	watching, stop := context.WithCancel(ctx)
	standby := make(chan *residency.Lease, 1)
	go func() { standby <- j.standby(watching, kind, lease.Stage, cut) }()
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
		j.spent(kind, lease, time.Since(start))
		if !again && stage.ReasonOf(err) == stage.EngineOOMUnplanned {
			lease.Exhausted()
		}
		if moved {
			j.release(call, lease, err) // which has ended: nobody waits for a stage that is silent
			return
		}
		j.release(ctx, lease, err)
		if err != nil && ctx.Err() != nil && j.Fleet.Mute(lease.Stage) { // then that is why time ran out
			err = stage.Errorf(stage.StageUnreachable, "the %v at %s does not answer", kind, lease.Stage)
		}
	}()
	err = work(call, lease.Stage)
	return nil, err
}

// standby takes a lease elsewhere while the stage at id, where the job works, is silent, and cuts the work when it has one. It
// returns that lease, or nil when ctx has ended. The stage keeps what it holds, and the lease there, until it says that the work
// has ended, or is gone.
func (j *job) standby(ctx context.Context, kind stage.Kind, id residency.StageID, cut func()) *residency.Lease {
	for j.Fleet.AwaitMute(ctx, id) == nil {
		j.emit(Warning{Code: StageSilent, Message: fmt.Sprintf("the %v at %s has not answered for %v; the work waits for it, or for another that can take it", kind, id, fleet.Patience)})
		silent, end := context.WithCancel(ctx)
		go func() {
			if j.Fleet.AwaitVoice(silent, id) == nil {
				end()
			}
		}()
		lease, err := j.acquire(silent, kind, false)
		if err == nil {
			end()
			j.emit(Warning{Code: StageRestarted, Message: fmt.Sprintf("the %v at %s does not answer; the work goes on from its last checkpoint at %s", kind, id, lease.Stage)})
			cut()
			return lease
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
func (j *job) release(ctx context.Context, lease *residency.Lease, err error) {
	if err == nil {
		lease.Release()
		return
	}
	lease.Unfinished()
	switch stage.ReasonOf(err) {
	case stage.RuntimeDied:
		lease.Lost()
	case stage.StageUnreachable, stage.StageDraining, stage.StageEvicted, stage.StageOwned:
		j.Fleet.Report(lease.Stage)
	case stage.DeviceBusy:
		lease.Crowded()
		j.Fleet.Ask(lease.Stage)
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

// spent adds a turn's times to the usage of its stage.
func (j *job) spent(kind stage.Kind, lease *residency.Lease, running time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	u := j.usage[kind]
	u.Queued += lease.Queued
	u.Loading += lease.Loading
	u.Running += running
}

// decided passes on a decision about memory that the job caused.
func (j *job) decided(e residency.Event) {
	j.mu.Lock()
	j.peak[e.Device] = max(j.peak[e.Device], e.UsedBytes)
	j.mu.Unlock()
	j.emit(Residency{Event: e})
}

// lost tells whether an error is about the stage: another try, here or on a replica, may succeed.
func lost(err error) bool {
	switch stage.ReasonOf(err) {
	case stage.RuntimeDied, stage.StageEvicted, stage.StageUnreachable, stage.StageDraining, stage.StageOwned, stage.DeviceBusy:
		return true
	}
	return false
}
