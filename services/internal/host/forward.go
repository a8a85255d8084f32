package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// lineGrace is how long after a call has failed on the way a child's end is waited for. It is
// usually seen within milliseconds.
const lineGrace = time.Second

// duty says what a call may meet.
type duty struct {
	work  bool   // a draining stage refuses it
	until uint64 // the last generation that it may go to; 0 is any
}

var (
	work   = duty{work: true}
	upkeep = duty{}
)

// within is d for a generation and those before it; 0 is any.
func (d duty) within(generation uint64) duty {
	d.until = generation
	return d
}

// forward makes a call to the present child, or to the next one if that is being started and the call may go there.
func forward[T any](ctx context.Context, h *Host, d duty, call func(*generation) (T, error)) (T, error) {
	g, err := h.acquire(ctx, d)
	if err != nil {
		var zero T
		return zero, err
	}
	value, err := call(g)
	return value, h.judge(ctx, g, err)
}

// acquire waits for a generation with a living child. That it is the current one and that the host
// is not draining is seen in one moment: Drain can rely on the child of the current generation to
// know of all work that was let through.
func (h *Host) acquire(ctx context.Context, d duty) (*generation, error) {
	for {
		h.mu.Lock()
		g, child, draining, drain := h.current, h.current.child, h.draining, h.drain
		h.mu.Unlock()
		switch {
		case h.closing.Err() != nil, draining && d.work:
			return nil, h.drainingError()
		case d.until > 0 && g.number > d.until:
			return nil, h.died("that the call was for has ended")
		}
		changed := g.ready
		if child != nil {
			select {
			case <-child.Exited():
				changed = g.over
			default:
				return g, nil
			}
		}
		select {
		case <-changed:
		case <-d.refusedBy(drain):
		case <-h.closing.Done():
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the runtime of the %v: %w", h.options.Kind, ctx.Err())
		}
	}
}

// refusedBy is drain, if that matters to the duty.
func (d duty) refusedBy(drain <-chan struct{}) <-chan struct{} {
	if d.work {
		return drain
	}
	return nil
}

// judge tells the death of a child from an error of the stage in it. An error that the stage gave
// has no cause here, causes do not come over the wire; one that has a cause was made on this side,
// about the line. The line of a child that lives does not break, so if it is gone and the child is
// not, the child is of no use and is ended.
func (h *Host) judge(ctx context.Context, g *generation, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	var e *stage.Error
	if errors.As(err, &e) && e.Cause == nil {
		return err
	}
	grace := time.NewTimer(lineGrace)
	defer grace.Stop()
	select {
	case <-g.child.Exited():
	case <-ctx.Done():
		return ctx.Err()
	case <-grace.C:
		if e == nil || e.Reason != stage.StageUnreachable {
			return err
		}
		g.child.Kill()
	}
	how := h.end(g)
	if begun, _ := h.shutdown.hasBegun(); begun && h.closing.Err() != nil {
		return h.drainingError()
	}
	died := h.died(how)
	died.Cause = err
	return died
}
