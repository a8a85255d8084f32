package host

import (
	"context"
	"slices"
	"sync"
)

// underway is the calls that load or use components and have not returned. One that is cut returns before the child hears
// of it, so what is to come behind such calls in the child waits for them here. mu is a leaf.
type underway struct {
	mu    sync.Mutex
	calls map[chan struct{}][]string // the components; closed at their end
}

// begin counts a call until end.
func (u *underway) begin(components ...string) (end func()) {
	call := make(chan struct{})
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.calls == nil {
		u.calls = map[chan struct{}][]string{}
	}
	u.calls[call] = components
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.calls, call)
		close(call)
	}
}

// settle waits until the calls have returned that are counted now.
func (u *underway) settle(ctx context.Context, component string) error {
	u.mu.Lock()
	var calls []chan struct{}
	for call, components := range u.calls {
		if slices.Contains(components, component) {
			calls = append(calls, call)
		}
	}
	u.mu.Unlock()
	for _, call := range calls {
		select {
		case <-call:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
