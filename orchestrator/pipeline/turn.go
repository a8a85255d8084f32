package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// How a turn is tried again: the pause doubles, and a stage that dies so often without getting
// further is not to be asked again, because the work itself may be what kills it.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
	maxDeaths  = 5
)

// turn works once in a stage of a kind, under a lease, and again for as long as what fails is the
// stage and not the work. progress (which may be nil) tells how far the work got; a death that got
// further than the one before does not count against the stage.
func (j *job) turn(ctx context.Context, kind stage.Kind, work func(context.Context, residency.StageID) error, progress func() int) error {
	ctx, done := j.Fleet.Guard(ctx, kind, j.Patience)
	defer done()
	deaths, reached, pause := 0, 0, firstPause
	var last error // why the turn before failed
	for {
		err := j.try(ctx, kind, work)
		if err == nil {
			j.taken(kind)
			return nil
		}
		if ctx.Err() != nil {
			return fleet.Ended(ctx, kind, last != nil)
		}
		if !lost(err) {
			return err
		}
		last = err
		if stage.ReasonOf(err) == stage.RuntimeDied {
			if deaths++; progress != nil && progress() > reached {
				deaths, reached, pause = 1, progress(), firstPause
			}
			if deaths == maxDeaths {
				return err
			}
		}
		j.emit(Warning{Code: StageRestarted, Message: fmt.Sprintf("%v; the work goes on from its last checkpoint", err)})
		select {
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		case <-ctx.Done():
			return fleet.Ended(ctx, kind, last != nil)
		}
	}
}

// try takes a lease and works once.
func (j *job) try(ctx context.Context, kind stage.Kind, work func(context.Context, residency.StageID) error) error {
	start := time.Now()
	var loading time.Time
	lease, err := j.Keeper.Acquire(ctx, residency.AcquireRequest{Job: j.id, Need: j.need(kind), Observer: residency.Observer{
		Event:    j.decided,
		Position: func(position int) { j.emit(Queued{Kind: kind, Position: position}) },
		Loading: func(loaded, total int64) {
			if loading.IsZero() {
				loading = time.Now()
			}
			j.emit(Loading{Kind: kind, LoadedBytes: loaded, TotalBytes: total})
		},
	}})
	if err != nil {
		return err
	}
	granted := time.Now()
	err = work(ctx, lease.Stage)
	j.spent(kind, start, loading, granted)
	switch stage.ReasonOf(err) {
	case stage.RuntimeDied, stage.StageEvicted:
		lease.Lost()
	case stage.StageUnreachable, stage.StageDraining:
		j.Fleet.Report(lease.Stage)
	}
	lease.Release()
	return err
}

// spent adds a turn's times to the usage of its stage.
func (j *job) spent(kind stage.Kind, start, loading, granted time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	u := j.usage[kind]
	if loading.IsZero() {
		loading = granted
	}
	u.Queued += loading.Sub(start)
	u.Loading += granted.Sub(loading)
	u.Running += time.Since(granted)
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
	case stage.RuntimeDied, stage.StageEvicted, stage.StageUnreachable, stage.StageDraining:
		return true
	}
	return false
}
