//go:build linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// callers ask for pictures at the same time, each for the next one when it has the last.
const callers = 8

// A load is callers at work.
type load struct {
	asking   context.Context //nolint:containedctx // ends when no more is asked for
	stop     context.CancelFunc
	working  sync.WaitGroup
	mutex    sync.Mutex
	pictures []time.Duration // how long each took
	failures []error
	progress chan struct{} // gets a value for each picture, if anybody waits
}

// startLoad makes callers ask for pictures until end is called, over connections of their own, and
// never a second time for one that failed.
func (t *T) startLoad(ctx context.Context) (*load, error) {
	for seed := range uint64(seeds) {
		if _, err := t.reference(ctx, picture{seed: seed}); err != nil {
			return nil, err
		}
	}
	asking, stop := context.WithCancel(ctx)
	l := &load{stop: stop, asking: asking, progress: make(chan struct{})}
	for i := range callers {
		conn, err := t.dial(nil)
		if err != nil {
			stop()
			return nil, err
		}
		l.working.Go(func() {
			defer func() { _ = conn.Close() }()
			for seed := uint64(i); asking.Err() == nil; seed++ {
				l.once(ctx, t, conn, picture{seed: seed % seeds})
			}
		})
	}
	return l, nil
}

// once asks for one picture. What runs when the load ends is finished, and counts.
func (l *load) once(ctx context.Context, t *T, conn *grpc.ClientConn, p picture) {
	begun := time.Now()
	err := t.same(ctx, conn, p, nil)
	l.mutex.Lock()
	if err != nil {
		l.failures = append(l.failures, fmt.Errorf("after %.1f s: %w", time.Since(begun).Seconds(), err))
	} else {
		l.pictures = append(l.pictures, time.Since(begun))
	}
	l.mutex.Unlock()
	if err != nil { // A caller that is refused at once would ask thousands of times.
		select {
		case <-time.After(time.Second):
		case <-l.asking.Done():
		}
	}
	select {
	case l.progress <- struct{}{}:
	default:
	}
}

// next waits for a number of pictures to be finished.
func (l *load) next(ctx context.Context, pictures int) error {
	timeout := time.After(patience)
	for range pictures {
		select {
		case <-l.progress:
		case <-timeout:
			return fmt.Errorf("not %d pictures within %s", pictures, patience)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// end waits for the pictures that are being made. It returns a line about all of them, and an error
// if one failed or differed from its reference.
func (l *load) end() (string, error) {
	l.stop()
	l.working.Wait()
	slices.Sort(l.pictures)
	line := fmt.Sprintf("%d pictures, %d failed", len(l.pictures), len(l.failures))
	if n := len(l.pictures); n > 0 {
		line += fmt.Sprintf(", bit-identical; median %.1f s, longest %.1f s", l.pictures[n/2].Seconds(), l.pictures[n-1].Seconds())
	}
	if len(l.failures) > 0 {
		return line, fmt.Errorf("%s; %w", line, errors.Join(l.failures[:min(3, len(l.failures))]...))
	}
	if len(l.pictures) == 0 {
		return line, errors.New("no picture was made")
	}
	return line, nil
}

// until waits for a moment.
func (l *load) until(ctx context.Context, moment time.Time) error {
	select {
	case <-time.After(time.Until(moment)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
