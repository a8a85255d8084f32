package host

import (
	"context"
	"sync"
)

// underway is the calls that load or use a model and have not returned. One that is cut returns before the child hears
// of it, so what is to come behind such calls in the child waits for them here. mu is a leaf.
type underway struct {
	mu    sync.Mutex
	calls map[chan struct{}]string // to the model; closed at their end
}

// begin counts a call until end.
func (u *underway) begin(model string) (end func()) {
	call := make(chan struct{})
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.calls == nil {
		u.calls = map[chan struct{}]string{}
	}
	u.calls[call] = model
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.calls, call)
		close(call)
	}
}

// settle waits until the calls have returned that are counted now.
func (u *underway) settle(ctx context.Context, model string) error {
	u.mu.Lock()
	var calls []chan struct{}
	for call, m := range u.calls {
		if m == model {
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
