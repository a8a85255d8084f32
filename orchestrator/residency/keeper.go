package residency

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// Options are what a Keeper may be given. The zero value will do.
type Options struct {
	Clock func() time.Time // of events; nil is time.Now
	// Policy is how decisions are made; the zero value will do.
	Policy Policy
	// Sink hears every event, one at a time and in order. When it is a thousand behind, events are
	// dropped, and Snapshot tells how many. nil hears nothing.
	Sink func(Event)
	// Changed is called whenever a Snapshot may be another one than before. It must not wait, nor call the Keeper. nil is not called.
	Changed func()
}

// Keeper keeps the ledger: it tells it what happens, and does what it decides. Safe for concurrent
// use.
//
// One goroutine owns the ledger and all that is listed under it below; everybody else hands it
// functions to run. It never waits for a stage or an observer: those have goroutines of their own.
type Keeper struct {
	clock   func() time.Time
	changed func()
	calls   chan func() // to the owning goroutine
	quit    chan struct{}
	close   func()

	ctx        context.Context // of all loads and evictions
	goroutines sync.WaitGroup

	ledger      ledger
	timer       *time.Timer // for the ledger's wake
	residents   map[StageID]stage.Resident
	callers     map[RequestID]*caller // not yet refused, released or revoked
	works       map[opID]*work
	last        map[spot]chan struct{} // closed when the latest work there has ended
	lastRequest RequestID
	sink        *outbox
	watches     map[*Watch]bool // that listen
}

// The errors that end a request without being about it.
var (
	errBusy   = errors.New("the stage cannot be had at once") // of TryAcquire, which keeps it
	errClosed = stage.Errorf(stage.StageDraining, "the orchestrator is shutting down")
)

// New starts a Keeper. Close ends it.
func New(o Options) *Keeper {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeper{
		clock: o.Clock, changed: o.Changed, calls: make(chan func()), quit: make(chan struct{}), ctx: ctx,
		residents: map[StageID]stage.Resident{}, callers: map[RequestID]*caller{},
		ledger: ledger{policy: o.Policy}, timer: time.NewTimer(0), works: map[opID]*work{}, last: map[spot]chan struct{}{}, watches: map[*Watch]bool{},
		sink: newOutbox(Observer{Event: o.Sink}),
	}
	k.close = sync.OnceFunc(func() {
		close(k.quit)
		cancel()
		k.goroutines.Wait()
	})
	k.timer.Stop()
	k.observe(k.sink)
	k.goroutines.Go(k.run)
	return k
}

// Close cancels loads and evictions, ends Acquire calls with StageDraining, and returns when every
// goroutine of the Keeper has ended.
func (k *Keeper) Close() { k.close() }

func (k *Keeper) run() {
	for {
		select {
		case call := <-k.calls:
			call()
		case <-k.timer.C:
			k.step(ticked{})
		case <-k.quit:
			k.timer.Stop()
			for _, c := range k.callers {
				c.answer(errClosed)
				c.outbox.close()
			}
			k.sink.close()
			return
		}
	}
}

// do runs f in the owning goroutine. It reports false, and f did not run, once the Keeper is closed.
func (k *Keeper) do(f func()) bool {
	done := make(chan struct{})
	select {
	case k.calls <- func() { defer close(done); f() }:
		<-done
		return true
	case <-k.quit:
		return false
	}
}

// tell takes an input to the ledger from outside.
func (k *Keeper) tell(in input) { k.do(func() { k.step(in) }) }

// Join tells that a stage is there, and what it said of itself when it was asked at a moment. Joining again tells that it may
// be another: what it still holds stays, and who works there goes on, unless it is on another device or plans otherwise.
func (k *Keeper) Join(id StageID, kind stage.Kind, device Device, s stage.Resident, info stage.Info, asked Moment) {
	in := joined{
		holds: holdsOf(id, info, asked), kind: kind, device: device, planning: info.Planning, generation: info.Generation, draining: info.Draining,
		warmBudget: info.WarmBudgetBytes, overhead: info.OverheadBytes, share: shareOf(info),
	}
	for _, c := range info.Components {
		if c.Problem == "" {
			in.names = append(in.names, c.Name)
		}
	}
	k.do(func() {
		k.residents[id] = s
		k.step(in)
	})
}

// Leave tells that a service is gone, with all it held.
func (k *Keeper) Leave(id StageID) {
	k.do(func() {
		k.step(left{id})
		delete(k.residents, id)
	})
}

// Announce tells which turns a job has yet to finish, in order, those it is at included. It replaces
// what the job announced before; Release takes a turn off. Requests of the job that wait for the same components have the
// footprints that are announced from then on.
func (k *Keeper) Announce(job JobID, needs []Need) { k.tell(announced{job, needs}) }

// Forget tells that a job will ask for nothing more.
func (k *Keeper) Forget(job JobID) { k.tell(forgotten{job}) }

// Check gives the largest device there is for a need, the zero one if no stage is known that serves it. It is
// ModelDoesNotFit when no device could hold the need while it holds nothing else.
func (k *Keeper) Check(n Need) (largest Device, err error) {
	open := k.do(func() { largest, err = k.ledger.largest(n) })
	if !open {
		return Device{}, errClosed
	}
	return largest, err
}

// step tells the ledger what happened, passes on the record, and does what was decided.
func (k *Keeper) step(in input) {
	now := k.clock()
	effects, events := k.ledger.step(now, in)
	k.timer.Stop()
	if wake := k.ledger.wake; !wake.IsZero() {
		k.timer.Reset(wake.Sub(now))
	}
	for _, e := range events {
		if c := k.callers[e.Request]; e.Class == WorkDone && c != nil && c.total.Load() > 0 {
			e.Work.Evaluations = int(c.reached.Load() - c.first.Load())
		}
		k.sink.put(e)
		for w := range k.watches {
			w.put(e)
		}
		if c := k.concerned(e); c != nil {
			c.outbox.put(e)
		}
	}
	for _, e := range effects {
		k.perform(e)
	}
	if k.changed != nil {
		k.changed()
	}
}

// concerned is whose observer hears of an event, nil if nobody's: the request that caused it, or the
// oldest of the job that something is prefetched for.
func (k *Keeper) concerned(e Event) *caller {
	if e.Request != 0 {
		return k.callers[e.Request]
	}
	var oldest *caller
	for _, c := range k.callers {
		if e.Job != "" && c.job == e.Job && (oldest == nil || c.id < oldest.id) {
			oldest = c
		}
	}
	return oldest
}

func (k *Keeper) perform(e effect) {
	switch e := e.(type) {
	case startLoad:
		k.load(e)
	case startEvict:
		w := k.works[e.load]
		if w == nil {
			k.evict(e)
			return
		}
		w.then = &e
		w.cancel()
	case abandon:
		for _, w := range k.works {
			if w.stage == e.stage {
				w.then = nil
				w.cancel()
			}
		}
	case moved:
		k.callers[e.request].outbox.put(ahead(e.ahead))
	case grant:
		c := k.callers[e.request]
		c.lease = e.lease
		c.lease.keeper, c.lease.caller = k, c
		c.answer(nil)
	case refuse:
		k.callers[e.request].answer(e.err)
		k.dismiss(e.request)
	case revoke:
		k.dismiss(e.request)
	}
}

// observe runs an outbox.
func (k *Keeper) observe(b *outbox) {
	if b != nil {
		k.goroutines.Go(b.run)
	}
}

// Moment orders what a stage says after what was decided.
type Moment uint64

// Now is the present moment, for Join and Measure.
func (k *Keeper) Now() (m Moment) {
	k.do(func() { m = Moment(k.ledger.lastOp) })
	return m
}

// Measure tells what a stage, which has joined, said when it was asked at a moment: of its runtime process, of its device's
// budget, of other processes there, and of what it holds. A silent one has answered with that.
func (k *Keeper) Measure(id StageID, info stage.Info, asked Moment) {
	k.tell(news{seen{id, info.Generation}, measured{id, info.OverheadBytes, shareOf(info)}, holdsOf(id, info, asked), silenced{id, false}})
}

func holdsOf(id StageID, info stage.Info, asked Moment) holds {
	in := holds{id, info.Resident, info.Warm, opID(asked), map[string]stage.Edition{}}
	for _, c := range info.Components {
		in.editions[c.Name] = c.Edition
	}
	return in
}

// Silent tells that a service does not answer although it may well live: it keeps its bytes and gets no
// new work until it answers (see Join and Measure) or leaves. Who is at work there stays so; who waits for a load there
// may have another service.
func (k *Keeper) Silent(id StageID) { k.tell(silenced{id, true}) }

// Want is what a stage is to tell other processes on its device that this Keeper lacks there.
func (k *Keeper) Want(id StageID) (w stage.Want) {
	k.do(func() { w = k.ledger.want(id) })
	return w
}

func shareOf(info stage.Info) stage.DeviceShare {
	return stage.DeviceShare{BudgetBytes: info.MemoryBudgetBytes, ForeignBytes: info.ForeignBytes, ForeignWants: info.ForeignWants}
}
