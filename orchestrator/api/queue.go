package api

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// limits are what may wait for a slow reader. Events that a newer one makes worthless replace each
// other and are few; the others are never dropped, so a reader that falls further behind is cut off.
type limits struct{ events, bytes int }

// defaultLimits have room for the largest image twice, so that one alone never is too much.
var defaultLimits = limits{events: 512, bytes: 2 * stagerpc.MaxImageBytes}

// queue holds the events of one request between the job, which must not wait, and the caller, who
// may be slow.
type queue struct {
	limits
	overflow context.CancelCauseFunc // ends the job

	mu     sync.Mutex
	items  []item
	held   int // bytes
	closed bool
	wake   chan struct{} // of capacity 1
}

type item struct {
	event *triptychv1alpha1.GenerateResponse
	key   string // events of one key replace each other; "" is never replaced
	size  int
}

func newQueue(l limits, overflow context.CancelCauseFunc) *queue {
	return &queue{limits: l, overflow: overflow, wake: make(chan struct{}, 1)}
}

// push appends an event; one of the same key that still waits is dropped.
func (q *queue) push(e *triptychv1alpha1.GenerateResponse, key string) {
	e.Time = timestamppb.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	if key != "" {
		for i, it := range q.items {
			if it.key == key {
				q.held -= it.size
				q.items = append(q.items[:i], q.items[i+1:]...)
				break
			}
		}
	}
	size := proto.Size(e)
	q.items = append(q.items, item{e, key, size})
	q.held += size
	if len(q.items) > q.events || q.held > q.bytes {
		q.overflow(slowConsumer(fmt.Sprintf("%d events of %d bytes wait to be read", len(q.items), q.held)))
	}
	q.signal()
}

// close says that no event follows.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// abandon drops what is not sent yet: no send begins from now on.
func (q *queue) abandon() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.items, q.held = true, nil, 0
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// drain sends events, numbered in the order of sending, until the queue is closed and empty or a
// send fails.
func (q *queue) drain(send func(*triptychv1alpha1.GenerateResponse) error) error {
	for sequence := uint64(1); ; sequence++ {
		e := q.pop()
		if e == nil {
			return nil
		}
		e.Sequence = sequence
		if err := send(e); err != nil {
			return err
		}
	}
}

// pop waits for an event; it is nil at the end.
func (q *queue) pop() *triptychv1alpha1.GenerateResponse {
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			next := q.items[0]
			q.held -= next.size
			q.items = q.items[1:]
			q.mu.Unlock()
			return next.event
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return nil
		}
		<-q.wake
	}
}

func slowConsumer(why string) *stage.Error {
	return stage.Errorf(stage.SlowConsumer, "the reader of the stream fell too far behind: %s", why)
}
