package fleet

import (
	"context"
	"errors"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// Guard returns a context for waiting. It ends early, with StageUnreachable or StageOwned as its cause, when for
// as long as patience no service was there of the kind that has the components. The caller must call the
// function returned.
func (f *Fleet) Guard(ctx context.Context, kind stage.Kind, components []string, patience time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		timer := time.NewTimer(patience) // runs while nobody is there
		defer timer.Stop()
		there := false
		for {
			news := f.next() // taken before the look, so that none is missed
			was := there
			there = f.Absent(kind, components) == nil
			switch {
			case there:
				timer.Stop()
			case was:
				timer.Reset(patience)
			}
			select {
			case <-ctx.Done():
				return
			case <-news:
			case <-timer.C:
				cancel(f.absent(kind))
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// Explain tells why something cannot be had, nil if it can, at first if it cannot and whenever the words change with the news of
// services, until stop is called. tell is called from one goroutine, and no longer when stop returns.
func (f *Fleet) Explain(ctx context.Context, why func() *stage.Error, tell func(*stage.Error)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	words := func(e *stage.Error) string {
		if e == nil {
			return ""
		}
		return e.Message
	}
	go func() {
		defer close(ended)
		var now, told *stage.Error
		for f.Await(ctx, func() bool { now = why(); return words(now) != words(told) }) == nil {
			told = now
			tell(told)
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// Ended is the error of waiting for a stage until ctx ended: StageUnreachable or StageOwned when patience or, with
// the stage failing, time ran out; else the context's own.
func (f *Fleet) Ended(ctx context.Context, kind stage.Kind, failing bool) error {
	cause := context.Cause(ctx)
	switch {
	case stage.ReasonOf(cause) != "":
		return cause
	case failing && errors.Is(cause, context.DeadlineExceeded):
		return f.absent(kind)
	}
	return ctx.Err()
}

// Absent is why no service of a kind answers that has some components: StageUnreachable or StageOwned, nil if one does.
func (f *Fleet) Absent(kind stage.Kind, components []string) *stage.Error {
	if len(f.Classes(kind, components)) > 0 {
		return nil
	}
	return f.absent(kind)
}
