package host

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// ownerSilence is how long an orchestrator may be silent before another one gets the service. It asks every second.
const ownerSilence = 10 * time.Second

// ownership is which orchestrator the service works for: two that load and evict behind each other's back would both
// be wrong about what is in memory. The zero value belongs to nobody. mu is a leaf.
type ownership struct {
	mu    sync.Mutex
	owner *owner
}

// owner is an orchestrator.
type owner struct {
	id   string
	seen time.Time
	over context.Context // ended, with StageOwned as its cause, when another orchestrator has the service
	end  context.CancelCauseFunc
}

// admit lets a caller in who is the owner or becomes it, because there is none or it has been silent for too long. A
// caller that says of no orchestrator is let in while nobody owns the service. Else the error is StageOwned. The
// context returned ends when the caller is the owner no more; done is to be called behind the call.
func (h *Host) admit(ctx context.Context) (admitted context.Context, done func(), err error) {
	id, now := stage.CallerOf(ctx).Orchestrator, h.clock.now()
	h.ownership.mu.Lock()
	defer h.ownership.mu.Unlock()
	o := h.ownership.owner
	alive := o != nil && now.Sub(o.seen) < ownerSilence
	switch {
	case alive && id != o.id:
		return nil, nil, h.ownedError()
	case id == "":
		return ctx, func() {}, nil
	case o == nil || id != o.id:
		if o != nil {
			h.logger.Warn("the orchestrator is silent, another one takes over", "silent", now.Sub(o.seen), "was", o.id, "is", id)
			o.end(h.ownedError())
		}
		o = &owner{id: id}
		o.over, o.end = context.WithCancelCause(context.Background())
		h.ownership.owner = o
	}
	o.seen = now
	admitted, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(o.over, func() { cancel(context.Cause(o.over)) })
	return admitted, func() {
		stop()
		cancel(nil)
		h.ownership.mu.Lock()
		defer h.ownership.mu.Unlock()
		o.seen = h.clock.now()
	}, nil
}

// admitted makes a call of a caller that is let in. A call that is cut because another orchestrator took over fails
// with StageOwned.
func admitted[T any](ctx context.Context, h *Host, call func(context.Context) (T, error)) (T, error) {
	in, done, err := h.admit(ctx)
	if err != nil {
		var zero T
		return zero, err
	}
	defer done()
	value, err := call(in)
	if cause := context.Cause(in); err != nil && ctx.Err() == nil && stage.ReasonOf(cause) == stage.StageOwned {
		err = cause
	}
	return value, err
}

func (h *Host) ownedError() *stage.Error {
	return stage.Errorf(stage.StageOwned, "the %v service works for another orchestrator", h.options.Kind).With("stage", fmt.Sprint(h.options.Kind))
}
