package residency

import (
	"context"
	"sync"
)

// Watch is a reader of the whole record, in its own time. The first it reads is a snapshot, and then
// every event since. One that falls a thousand events behind loses them, and reads a snapshot again.
type Watch struct {
	keeper *Keeper
	wake   chan struct{} // of capacity 1

	mu      sync.Mutex
	queue   []Event
	behind  bool // a snapshot comes next
	dropped int
}

// News is what a Watch reads: a snapshot, or else an event.
type News struct {
	Snapshot *Snapshot
	Event    Event
	// Dropped is how many events the reader has lost so far, all of them before a snapshot.
	Dropped int
}

// Watch starts a reader. It is to be closed.
func (k *Keeper) Watch() *Watch {
	return &Watch{keeper: k, wake: make(chan struct{}, 1), behind: true}
}

// Next waits for news. StageDraining when the Keeper is closed; else the error of ctx, or its cause if
// that is a *stage.Error. It must not be called twice at once.
func (w *Watch) Next(ctx context.Context) (News, error) {
	for {
		if ctx.Err() != nil {
			return News{}, reasonOf(ctx)
		}
		e, some, behind := w.pop()
		switch {
		case some:
			return e, nil
		case behind:
			n, open := w.catchUp()
			if !open {
				return News{}, errClosed
			}
			return n, nil
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
		case <-w.keeper.quit:
			return News{}, errClosed
		}
	}
}

// Close ends the reader.
func (w *Watch) Close() { w.keeper.do(func() { delete(w.keeper.watches, w) }) }

func (w *Watch) pop() (n News, some, behind bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return News{}, false, w.behind
	}
	n = News{Event: w.queue[0], Dropped: w.dropped}
	w.queue = w.queue[1:]
	return n, true, false
}

// catchUp takes a snapshot and, in the same step of the Keeper, begins to listen.
func (w *Watch) catchUp() (n News, open bool) {
	open = w.keeper.do(func() {
		s := w.keeper.look()
		w.keeper.watches[w] = true
		w.mu.Lock()
		defer w.mu.Unlock()
		w.behind = false
		n = News{Snapshot: &s, Dropped: w.dropped}
	})
	return n, open
}

// put adds an event. It does not wait.
func (w *Watch) put(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.behind:
		w.dropped++
	case len(w.queue) == maxQueued:
		w.dropped += len(w.queue) + 1
		w.queue, w.behind = nil, true
	default:
		w.queue = append(w.queue, e)
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
