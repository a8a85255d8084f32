package api

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// limits are what may wait for a slow reader. Events that a newer one makes worthless replace each other; of the others
// that tell how a job goes the oldest is left out for one too many. Images never are: the job waits until there is room.
type limits struct{ events, bytes int }

// defaultLimits have room for the largest image twice, so that one alone never is too much.
var defaultLimits = limits{events: 512, bytes: 2 * stagerpc.MaxFileBytes}

// queue holds the events of one request between the job, which waits for nothing but room for images, and the caller,
// who may be slow.
type queue struct {
	limits
	patience time.Duration           // how long images wait for a reader who takes nothing
	overflow context.CancelCauseFunc // ends the job

	mu     sync.Mutex
	items  []item
	held   int // bytes
	closed bool
	wake   chan struct{} // of capacity 1
	taken  chan struct{} // closed and renewed whenever an event is taken
}

type item struct {
	event *triptychv1alpha1.GenerateResponse
	key   string // events of one key replace each other; "" is never replaced
	keep  bool   // it is never left out
	size  int
}

func newQueue(l limits, patience time.Duration, overflow context.CancelCauseFunc) *queue {
	return &queue{limits: l, patience: patience, overflow: overflow, wake: make(chan struct{}, 1), taken: make(chan struct{})}
}

// push appends an event that tells how the job goes; one of the same key that still waits is dropped.
func (q *queue) push(e *triptychv1alpha1.GenerateResponse, key string) {
	q.append(item{event: e, key: key})
}

// pushAlways appends an event that is never left out. There are few of them.
func (q *queue) pushAlways(e *triptychv1alpha1.GenerateResponse) {
	q.append(item{event: e, keep: true})
}

// pushImage appends the parts of an image, once there is room for them beside other images or nothing else waits. A reader who takes nothing
// for as long as patience ends the job; so does ctx the waiting.
func (q *queue) pushImage(ctx context.Context, parts []*triptychv1alpha1.GenerateResponse) {
	size := 0
	for _, e := range parts {
		size += proto.Size(e)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.held > 0 && q.held+size > q.bytes && !q.closed {
		if q.drop(dispensable) {
			continue
		}
		held, taken := q.held, q.taken
		q.mu.Unlock()
		waited := time.NewTimer(q.patience)
		select {
		case <-taken:
		case <-waited.C:
			q.overflow(slowConsumer(fmt.Sprintf("images wait behind %s that nobody took for %v", stage.Size(int64(held)), q.patience)))
			q.mu.Lock()
			return
		case <-ctx.Done():
			q.mu.Lock()
			return
		}
		waited.Stop()
		q.mu.Lock()
	}
	for _, e := range parts {
		q.appendLocked(item{event: e, keep: true})
	}
}

func (q *queue) append(it item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.appendLocked(it)
}

// appendLocked appends an event; q.mu is held.
func (q *queue) appendLocked(it item) {
	if q.closed {
		return
	}
	it.event.Time = timestamppb.Now()
	it.size = proto.Size(it.event)
	if it.key != "" {
		q.drop(func(old item) bool { return old.key == it.key })
	}
	q.items = append(q.items, it)
	q.held += it.size
	for (len(q.items) > q.events || q.held > q.bytes) && q.drop(dispensable) {
	}
	q.signal()
}

func dispensable(it item) bool { return !it.keep }

// drop takes out the oldest event that is so, if there is one; q.mu is held.
func (q *queue) drop(so func(item) bool) bool {
	i := slices.IndexFunc(q.items, so)
	if i < 0 {
		return false
	}
	q.held -= q.items[i].size
	q.items = slices.Delete(q.items, i, i+1)
	return true
}

// next is closed when the next event is taken.
func (q *queue) next() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.taken
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
			close(q.taken)
			q.taken = make(chan struct{})
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
	return stage.Errorf(stage.SlowConsumer, "the reader of the stream is too slow: %s", why)
}
