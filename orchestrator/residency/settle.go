package residency

import (
	"context"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// settlePause lies between two attempts to ask a stage whether work has ended.
const settlePause = time.Second

// Settle is Release for work that its stage may still do, because the call failed or was cut off: stage and scratch are
// given back, and count until then, when the stage says that the work has ended, or is lost with all it held. As long as it
// cannot be asked it is not said to have ended. Settle returns when that is done, or earlier when ctx ends: the Keeper
// sees to the rest, of which the observer hears nothing.
func (l *Lease) Settle(ctx context.Context) {
	k, c := l.keeper, l.claim
	k.do(func() {
		if k.claims[c.id] != nil && !c.settles {
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
func (c *claim) settle(resident stage.Resident) {
	for !settled(resident.Settle(c.over, c.model)) {
		select {
		case <-time.After(settlePause):
		case <-c.over.Done():
			return
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
