package api

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// What may wait for a slow reader. Events that a newer one makes worthless replace each other and
// are few; the others are never dropped, so a reader that falls further behind is cut off.
const (
	maxQueuedEvents = 512
	maxQueuedBytes  = 64 << 20
)

// queue holds the events of one request between the job, which must not wait, and the caller, who
// may be slow.
type queue struct {
	overflow context.CancelCauseFunc // ends the job

	mu     sync.Mutex
	items  []item
	bytes  int
	closed bool
	wake   chan struct{} // of capacity 1
}

type item struct {
	event *triptychv1alpha1.GenerateResponse
	key   string // events of one key replace each other; "" is never replaced
}

func newQueue(overflow context.CancelCauseFunc) *queue {
	return &queue{overflow: overflow, wake: make(chan struct{}, 1)}
}

// push appends an event; one of the same key that still waits is dropped.
func (q *queue) push(e *triptychv1alpha1.GenerateResponse, key string) {
	e.Time = timestamppb.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if key != "" {
		for i, it := range q.items {
			if it.key == key {
				q.bytes -= proto.Size(it.event)
				q.items = append(q.items[:i], q.items[i+1:]...)
				break
			}
		}
	}
	q.items = append(q.items, item{e, key})
	q.bytes += proto.Size(e)
	if len(q.items) > maxQueuedEvents || q.bytes > maxQueuedBytes {
		q.overflow(slowConsumer(fmt.Sprintf("%d events of %d bytes wait to be read", len(q.items), q.bytes)))
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

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// drain sends events, numbered in the order of sending, until the queue is closed and empty.
func (q *queue) drain(ctx context.Context, send func(*triptychv1alpha1.GenerateResponse) error) error {
	for sequence := uint64(1); ; sequence++ {
		e, err := q.pop(ctx)
		if e == nil {
			return err
		}
		e.Sequence = sequence
		if err := send(e); err != nil {
			return err
		}
	}
}

// pop waits for an event; it is nil at the end.
func (q *queue) pop(ctx context.Context) (*triptychv1alpha1.GenerateResponse, error) {
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			e := q.items[0].event
			q.bytes -= proto.Size(e)
			q.items = q.items[1:]
			q.mu.Unlock()
			return e, nil
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return nil, nil
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func slowConsumer(why string) *stage.Error {
	return stage.Errorf(stage.SlowConsumer, "the reader of the stream fell too far behind: %s", why)
}
