package residency

import (
	"slices"
	"sync"
)

// maxQueued is how many events wait for a slow observer before further ones are dropped.
const maxQueued = 1024

// Observer hears what happens to a request: one call at a time, in order, from within Acquire until
// Release has returned. A nil func is not called. A slow observer delays its own request only; it
// must not call Release itself.
type Observer struct {
	// Event: a decision that the request caused, or a prefetch for its job.
	Event func(Event)
	// Position: while the request waits, how many are ahead of it for the services it may have, those at
	// work included. One that was not told in time is replaced by the next.
	Position func(ahead int)
	// Loading: how far the load is that the request waits for, of one component after another. Replaced like Position.
	Loading func(loadedBytes, totalBytes int64)
}

// outbox keeps what an observer is to hear, and tells it from a goroutine of its own, so that no
// observer can block the keeper. A nil outbox keeps nothing.
type outbox struct {
	observer Observer

	mu      sync.Mutex // never held over a call of the observer
	changed sync.Cond
	queue   []any // Event, ahead, progress; of the last two, one each
	calling bool
	closed  bool
	dropped int // events
}

type (
	ahead    int
	progress struct{ loaded, total int64 } // bytes
)

// newOutbox makes an outbox whose run is to be started.
func newOutbox(o Observer) *outbox {
	if o.Event == nil && o.Position == nil && o.Loading == nil {
		return nil
	}
	b := &outbox{observer: o}
	b.changed.L = &b.mu
	return b
}

// run tells the observer until the outbox is closed and empty.
func (b *outbox) run() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		for len(b.queue) == 0 && !b.closed {
			b.changed.Wait()
		}
		if len(b.queue) == 0 {
			return
		}
		next := b.queue[0]
		b.queue = b.queue[1:]
		b.calling = true
		b.mu.Unlock()
		b.tell(next)
		b.mu.Lock()
		b.calling = false
		b.changed.Broadcast()
	}
}

func (b *outbox) tell(news any) {
	switch n := news.(type) {
	case Event:
		if b.observer.Event != nil {
			b.observer.Event(n)
		}
	case ahead:
		if b.observer.Position != nil {
			b.observer.Position(int(n))
		}
	case progress:
		if b.observer.Loading != nil {
			b.observer.Loading(n.loaded, n.total)
		}
	}
}

// put adds news. It does not wait.
func (b *outbox) put(news any) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	switch news.(type) {
	case Event:
		if len(b.queue) >= maxQueued {
			b.dropped++
			return
		}
	case ahead:
		b.queue = slices.DeleteFunc(b.queue, func(n any) bool { _, ok := n.(ahead); return ok })
	case progress:
		b.queue = slices.DeleteFunc(b.queue, func(n any) bool { _, ok := n.(progress); return ok })
	}
	b.queue = append(b.queue, news)
	b.changed.Broadcast()
}

// close ends the outbox once it is empty; what is put later is not told.
func (b *outbox) close() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.changed.Broadcast()
}

// flush waits until all that was put has been told.
func (b *outbox) flush() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) > 0 || b.calling {
		b.changed.Wait()
	}
}

// lost is how many events were dropped.
func (b *outbox) lost() int {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}
