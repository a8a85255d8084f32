package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// change is what the ledger came to by a decision.
type change struct {
	time    time.Time
	used    int64
	scratch int64 // of it: work may not have touched it yet
	busy    int   // loads and evictions under way
}

// ledger follows the orchestrator's, by its record alone.
type ledger struct {
	changes    []change
	held       map[string]int64 // by kind of stage
	peaks      map[string]int64 // the most of it
	sure       map[string]int64 // the most of it that must have been there at once: see certain
	works      map[string]*span // at work now, by kind of stage
	peak       int64
	loads      int
	prefetched int
	evictions  int
	loaded     int64            // bytes
	kept       map[string]int64 // bytes that the host's memory keeps, by stage and component
	keptPeak   int64            // the most of it
	fromWarm   int              // loads and prefetches from there
	over       int              // decisions that left more than the budget
	moving     map[string]int64 // bytes of components that load or are evicted, by stage and component
	scratch    map[string]int64 // by kind of stage

	cancel context.CancelFunc
	done   chan error
}

// follow listens from now on; what is there already is not known, so it is to be nothing.
func follow(conn *grpc.ClientConn) (*ledger, error) {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := triptychv1alpha1.NewResidencyServiceClient(conn).WatchResidency(ctx, &triptychv1alpha1.WatchResidencyRequest{})
	if err != nil {
		cancel()
		return nil, err
	}
	first, err := stream.Recv()
	if err == nil && len(first.GetSnapshot().GetComponents()) > 0 {
		err = fmt.Errorf("something is resident before the first job: %v", first.GetSnapshot())
	}
	if err != nil {
		cancel()
		return nil, err
	}
	l := newLedger()
	l.cancel, l.done = cancel, make(chan error, 1)
	go func() {
		for {
			news, err := stream.Recv()
			switch {
			case ctx.Err() != nil:
				l.done <- nil
				return
			case err != nil:
				l.done <- err
				return
			case news.GetSnapshot() != nil:
				l.done <- fmt.Errorf("decisions were lost")
				return
			}
			l.add(news.GetDecision())
		}
	}()
	return l, nil
}

func newLedger() *ledger {
	return &ledger{held: map[string]int64{}, peaks: map[string]int64{}, sure: map[string]int64{}, works: map[string]*span{}, moving: map[string]int64{}, scratch: map[string]int64{}, kept: map[string]int64{}}
}

// stop ends it; what it knows may be read afterwards.
func (l *ledger) stop() error {
	l.cancel()
	return <-l.done
}

func (l *ledger) add(d *triptychv1alpha1.ResidencyDecision) {
	e := d.GetEvent()
	kind, at := e.GetStage(), e.GetStage()+" "+e.GetComponent()
	switch e.GetAction() {
	case triptychv1alpha1.ResidencyEvent_ACTION_RESERVE:
		l.held[kind] += e.GetBytes()
		l.scratch[kind] = e.GetBytes() // and weights, if they are loaded next
	case triptychv1alpha1.ResidencyEvent_ACTION_PREFETCH:
		l.held[kind] += e.GetBytes()
		l.prefetched++
		l.loaded += e.GetBytes()
		l.moving[at] = e.GetBytes()
	case triptychv1alpha1.ResidencyEvent_ACTION_LOAD:
		l.loads++
		l.scratch[kind] -= e.GetBytes()
		l.loaded += e.GetBytes()
		l.moving[at] = e.GetBytes()
	case triptychv1alpha1.ResidencyEvent_ACTION_LOADED:
		delete(l.moving, at)
		delete(l.kept, at)
		if e.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_FROM_WARM {
			l.fromWarm++
			l.loaded -= e.GetBytes()
		}
	case triptychv1alpha1.ResidencyEvent_ACTION_KEEP:
		l.kept[at] = e.GetBytes()
		l.keptPeak = max(l.keptPeak, total(l.kept))
	case triptychv1alpha1.ResidencyEvent_ACTION_EVICT:
		l.evictions++
		l.moving[at] = e.GetBytes()
	case triptychv1alpha1.ResidencyEvent_ACTION_RELEASE, triptychv1alpha1.ResidencyEvent_ACTION_LOST:
		l.held[kind] -= e.GetBytes()
		if e.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_EVICTED && e.GetBytes() == 0 || e.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_LOST {
			delete(l.kept, at) // it was dropped
		}
		if e.GetClass() != triptychv1alpha1.ResidencyEvent_CLASS_EVICTED {
			l.scratch[kind] = 0
		}
		if c := e.GetClass(); c == triptychv1alpha1.ResidencyEvent_CLASS_EVICTED || c == triptychv1alpha1.ResidencyEvent_CLASS_FAILED {
			delete(l.moving, at)
		}
	}
	l.peaks[kind] = max(l.peaks[kind], l.held[kind])
	l.certain(e)
	if e.GetDevice() == "" {
		return
	}
	l.peak = max(l.peak, e.GetUsedBytes())
	if e.GetBudgetBytes() > 0 && e.GetUsedBytes() > e.GetBudgetBytes() {
		l.over++
	}
	c := change{time: e.GetTime().AsTime(), used: e.GetUsedBytes(), busy: len(l.moving)}
	c.scratch = total(l.scratch)
	l.changes = append(l.changes, c)
}

// span is a stage's work: scratch, which is mapped some time after the grant and unmapped before it is given back, and the least
// weights that were there from the one to the other.
type span struct{ scratch, weights int64 }

// certain follows what must have been there: weights that neither load nor are evicted, and with the scratch of a work that came
// to its end those that were there for all of it. Everything else is reserved before it is there and until it is surely gone.
func (l *ledger) certain(e *triptychv1alpha1.ResidencyEvent) {
	kind := e.GetStage()
	weights := l.held[kind] - l.scratch[kind]
	for at, bytes := range l.moving {
		if strings.HasPrefix(at, kind+" ") {
			weights -= bytes
		}
	}
	l.sure[kind] = max(l.sure[kind], weights)
	if w := l.works[kind]; w != nil {
		w.weights = min(w.weights, weights)
	}
	switch {
	case e.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_GRANT:
		l.works[kind] = &span{l.scratch[kind], weights}
	case e.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_WORK_DONE:
		if w := l.works[kind]; w != nil && !e.GetUnfinished() {
			l.sure[kind] = max(l.sure[kind], w.scratch+w.weights)
		}
		delete(l.works, kind)
	}
}

func total(of map[string]int64) (sum int64) {
	for _, bytes := range of {
		sum += bytes
	}
	return sum
}

// settled yields the samples of moments in which nothing was decided for as long as margin before and after and
// no load or eviction was under way, with what the ledger had then.
func (l *ledger) settled(samples []sample, margin time.Duration) func(yield func(sample, change) bool) {
	return func(yield func(sample, change) bool) {
		i := 0
		for _, s := range samples {
			for i < len(l.changes) && l.changes[i].time.Before(s.time) {
				i++
			}
			if i == 0 || l.changes[i-1].busy > 0 || s.time.Sub(l.changes[i-1].time) < margin || i < len(l.changes) && l.changes[i].time.Sub(s.time) < margin {
				continue
			}
			if !yield(s, l.changes[i-1]) {
				return
			}
		}
	}
}
