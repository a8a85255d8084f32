package fleet

import (
	"context"
	"errors"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// Guard returns a context that ends early, with StageUnreachable as its cause, when no service of
// the kind has answered for patience. The caller must call the function returned.
func (f *Fleet) Guard(ctx context.Context, kind stage.Kind, patience time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		for {
			news := f.next()
			if f.answers(kind) {
				timer.Reset(patience)
			}
			select {
			case <-ctx.Done():
				return
			case <-news:
			case <-timer.C:
				cancel(Unreachable(kind))
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// answers tells whether some service of the kind is there to work.
func (f *Fleet) answers(kind stage.Kind) bool {
	for _, m := range f.members {
		if _, joined := m.last(); joined && m.kind == kind {
			return true
		}
	}
	return false
}

// Ended is the error of waiting for a stage until ctx ended: StageUnreachable when patience or, with
// the stage failing, time ran out; else the context's own.
func Ended(ctx context.Context, kind stage.Kind, failing bool) error {
	cause := context.Cause(ctx)
	switch {
	case stage.ReasonOf(cause) != "":
		return cause
	case failing && errors.Is(cause, context.DeadlineExceeded):
		return Unreachable(kind)
	}
	return ctx.Err()
}
