package residency

import (
	"context"
	"errors"
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

// Lease is one stage with a model resident, and scratch reserved, for one request alone.
type Lease struct {
	Stage   StageID
	Queued  time.Duration // until the bytes were reserved, evictions included
	Loading time.Duration // from then on until the weights were resident
	Edition stage.Edition // of the weights, as far as the stage has told

	keeper *Keeper
	claim  *claim
}

// claim is a request as the Keeper knows it.
type claim struct {
	id     RequestID
	job    JobID
	model  string
	lease  Lease
	outbox *outbox
	done   chan struct{} // closed once granted or refused
	err    error         // why refused; the owning goroutine's until done

	over    context.Context // ended once refused, released or revoked
	end     context.CancelFunc
	settles bool // until the stage's work has ended; the owning goroutine's
}

// Acquire waits until a stage has the model resident and the bytes are reserved. A caller that
// acquires while it holds a lease may wait for itself.
//
// ModelDoesNotFit when no device could ever hold it; what the load failed with; RuntimeDied when
// runtimes keep ending while they load it; StageUnreachable when ctx ended and no service had the
// model; StageDraining when the Keeper is closed; else the error of ctx, or its cause if that is a
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
	c := &claim{job: r.Job, model: r.Need.Model, outbox: newOutbox(r.Observer), done: make(chan struct{})}
	c.lease.keeper, c.lease.claim = k, c
	c.over, c.end = context.WithCancel(k.ctx)
	open := k.do(func() {
		k.lastRequest++
		c.id = k.lastRequest
		k.claims[c.id] = c
		k.observe(c.outbox)
		in := asked{c.id, r.Job, r.Need, try}
		if r.Again {
			k.step(askedAgain{in})
		} else {
			k.step(in)
		}
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
		l.keeper.step(released{l.claim.id})
		l.keeper.forgetClaim(l.claim.id)
	})
	l.claim.outbox.flush()
}

// Lost tells that the stage's runtime process ended under the lease: all it held is gone. After the
// Keeper has noticed itself, it does nothing.
func (l *Lease) Lost() { l.keeper.tell(failed{l.claim.id}) }

// answer ends the waiting for a claim, the first time it is called.
func (c *claim) answer(err error) {
	select {
	case <-c.done:
	default:
		c.err = err
		close(c.done)
	}
}

// forgetClaim ends what a request's observer hears.
func (k *Keeper) forgetClaim(id RequestID) {
	if c := k.claims[id]; c != nil {
		c.outbox.close()
		delete(k.claims, id)
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
