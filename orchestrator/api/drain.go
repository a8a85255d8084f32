package api

import (
	"context"
	"errors"
	"sync"

	"github.com/triptych-serving/triptych/stage"
)

// errShuttingDown is for callers whose request is not begun, or not ended, because the orchestrator ends.
var errShuttingDown = stage.Errorf(stage.ShuttingDown, "the orchestrator is shutting down; another one, or the next one here, takes the request")

// drain counts the calls of Generate, and ends them.
type drain struct {
	cut    context.Context // ended with errShuttingDown when running calls are to end
	cutNow context.CancelCauseFunc
	over   chan struct{} // closed when no call is left

	mu    sync.Mutex
	begun bool
	calls sync.WaitGroup
}

func newDrain() *drain {
	d := &drain{over: make(chan struct{})}
	d.cut, d.cutNow = context.WithCancelCause(context.Background())
	return d
}

// enter counts a call until leave, whose context ends when it is to be cut. The error is errShuttingDown.
func (d *drain) enter(ctx context.Context) (call context.Context, leave func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun {
		return nil, nil, errShuttingDown
	}
	d.calls.Add(1)
	call, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(d.cut, func() { cancel(errShuttingDown) })
	return call, func() {
		stop()
		cancel(context.Canceled)
		d.calls.Done()
	}, nil
}

// told is the error of a call for its caller: errShuttingDown if it was cut.
func (d *drain) told(call context.Context, err error) error {
	if errors.Is(err, context.Canceled) && stage.ReasonOf(context.Cause(call)) == stage.ShuttingDown {
		return context.Cause(call)
	}
	return err
}

// Drain refuses new images and returns when those under way have ended; what still runs at the end of ctx is cut. Both are
// ShuttingDown for the caller. Those who watch hear it last. It is called once.
func (s *Service) Drain(ctx context.Context) {
	d := s.drain
	d.mu.Lock()
	d.begun = true
	d.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { d.cutNow(errShuttingDown) })
	defer stop()
	d.calls.Wait()
	close(d.over)
}
