package residency

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// AcquireRequest asks for a stage.
type AcquireRequest struct {
	Job      JobID // whose turn it is, in Announce and in events; may be empty
	Need     Need
	Observer Observer
	Again    bool // after Lease.Exhausted: waits until evictions on the device are done
}

// Lease is one stage with a set of components resident, and scratch reserved, for one request alone.
type Lease struct {
	Stage      StageID
	Components []string                 // that are held, as they were asked for
	Queued     time.Duration            // until the bytes were reserved, evictions included
	Loading    time.Duration            // from then on until the weights were resident
	Footprint  stage.Footprint          // of the service that does the work
	Editions   map[string]stage.Edition // of the weights, by component, as far as the stage has told

	keeper *Keeper
	caller *caller
}

// caller is a request as the Keeper knows it.
type caller struct {
	id     RequestID
	job    JobID
	need   Need
	lease  Lease
	outbox *outbox
	done   chan struct{} // closed once granted or refused
	err    error         // why refused; the owning goroutine's until done

	over    context.Context // ended once refused, released or revoked
	end     context.CancelFunc
	settles bool // until the stage's work has ended; the owning goroutine's

	first, reached, total atomic.Int64 // evaluations, see Lease.Progress
}

// Acquire waits until a stage has the components resident and the bytes are reserved. A caller that
// acquires while it holds a lease may wait for itself.
//
// ModelDoesNotFit when no device could ever hold it; what the load failed with; RuntimeDied when
// runtimes keep ending while they load it; StageUnreachable when ctx ended and no service had the
// components; StageDraining when the Keeper is closed; else the error of ctx, or its cause if that is a
// *stage.Error.
func (k *Keeper) Acquire(ctx context.Context, r AcquireRequest) (*Lease, error) {
	return k.acquire(ctx, r, false)
}

// TryAcquire is Acquire for work that may be left out: it reports false when the request would have
// to wait for others or evict anything. It does wait for the load.
func (k *Keeper) TryAcquire(ctx context.Context, r AcquireRequest) (*Lease, bool) {
	lease, err := k.acquire(ctx, r, true)
	return lease, err == nil
}

func (k *Keeper) acquire(ctx context.Context, r AcquireRequest, try bool) (*Lease, error) {
	if ctx.Err() != nil {
		return nil, reasonOf(ctx)
	}
	c := &caller{job: r.Job, need: r.Need, outbox: newOutbox(r.Observer), done: make(chan struct{})}
	c.over, c.end = context.WithCancel(k.ctx)
	open := k.do(func() {
		k.lastRequest++
		c.id = k.lastRequest
		k.callers[c.id] = c
		k.observe(c.outbox)
		k.step(asked{c.id, r.Job, r.Need, try, r.Again})
	})
	if !open {
		c.end()
		return nil, errClosed
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		err := reasonOf(ctx)
		k.do(func() {
			k.step(cancelled{c.id, err})
			if c.err == nil { // it was granted just before
				c.err = err
			}
		})
		<-c.done
	}
	c.outbox.flush()
	if c.err != nil {
		return nil, c.err
	}
	return &c.lease, nil
}

// Release gives the stage and the scratch back. The weights stay as long as nobody needs their
// room. After a loss, and the second time, it does nothing.
func (l *Lease) Release() {
	l.keeper.do(func() {
		l.keeper.step(released{l.caller.id})
		l.keeper.dismiss(l.caller.id)
	})
	l.caller.outbox.flush()
}

// Progress tells how many evaluations of a turn that counts them have ended, those before the lease included. It is called from one
// goroutine, before the first and behind each.
func (l *Lease) Progress(done, total int) {
	c := l.caller
	if c.total.Swap(int64(total)) == 0 {
		c.first.Store(int64(done))
	}
	c.reached.Store(int64(done))
}

// Lost tells that the stage's runtime process ended under the lease: all it held is gone. After the
// Keeper has noticed itself, it does nothing.
func (l *Lease) Lost() { l.tell(failed, "") }

// Crowded tells that the work under the lease found the device's bytes taken by other processes. Nothing is reserved on the
// device until it is measured.
func (l *Lease) Crowded() { l.tell(crowded, "") }

// Exhausted tells that the device ran out of memory under the lease: all that is idle there is evicted. Work
// that is to be tried once more releases the lease and acquires with Again.
func (l *Lease) Exhausted() { l.tell(exhausted, "") }

// Distrust tells that the weights under the lease are not to be used again, and why: behind the lease they are evicted.
func (l *Lease) Distrust(why string) { l.tell(distrusted, why) }

// Unfinished tells that the work under the lease failed or was cut off. The turn stays among those that the job has
// announced, and the record says that it was not taken. Release follows.
func (l *Lease) Unfinished() { l.tell(unfinished, "") }

func (l *Lease) tell(what finding, why string) { l.keeper.tell(found{l.caller.id, what, why}) }

// answer ends the waiting for a caller, the first time it is called.
func (c *caller) answer(err error) {
	select {
	case <-c.done:
	default:
		c.err = err
		close(c.done)
	}
}

// dismiss ends what a request's observer hears.
func (k *Keeper) dismiss(id RequestID) {
	if c := k.callers[id]; c != nil {
		c.outbox.close()
		delete(k.callers, id)
		c.end()
	}
}

// reasonOf is why ctx ended: its cause if that is a *stage.Error, else its error.
func reasonOf(ctx context.Context) error {
	var e *stage.Error
	if cause := context.Cause(ctx); errors.As(cause, &e) {
		return e
	}
	return ctx.Err()
}

// settlePause lies between two attempts to ask a stage whether work has ended.
const settlePause = time.Second

// Settle is Release for work that its stage may still do, because the call failed or was cut off: stage and scratch are
// given back, and count until then, when the stage says that the work has ended, or is lost with all it held. As long as it
// cannot be asked it is not said to have ended. Settle returns when that is done, or earlier when ctx ends: the Keeper
// sees to the rest, of which the observer hears nothing.
func (l *Lease) Settle(ctx context.Context) {
	k, c := l.keeper, l.caller
	k.do(func() {
		if k.callers[c.id] != nil && !c.settles {
			c.settles = true
			resident := k.residents[l.Stage]
			k.goroutines.Go(func() { c.settle(resident) })
		}
	})
	select {
	case <-c.over.Done():
	case <-ctx.Done():
		c.outbox.close()
	}
	c.outbox.flush()
}

// settle releases the lease once its stage says that the work has ended.
func (c *caller) settle(resident stage.Resident) {
	for _, name := range c.need.Components {
		for !settled(resident.Settle(c.over, name)) {
			select {
			case <-time.After(settlePause):
			case <-c.over.Done():
				return
			}
		}
	}
	c.lease.Release()
}

// settled tells whether the answer of a stage leaves no work there that could be waited for: it has ended, or the runtime
// has, or the stage is one that cannot tell.
func settled(err error) bool {
	reason := stage.ReasonOf(err)
	return err == nil || reason == stage.RuntimeDied || reason == stage.StageProtocolUnsupported
}
