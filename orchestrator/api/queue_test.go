package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

func event(code string) *response {
	return &response{Event: &triptychv1alpha1.GenerateResponse_Warning{Warning: &triptychv1alpha1.Warning{Code: code}}}
}

// drained is what a queue that is closed still sends.
func drained(t *testing.T, q *queue) (codes []string) {
	t.Helper()
	err := q.drain(func(e *response) error {
		if codes = append(codes, e.GetWarning().GetCode()); e.GetSequence() != uint64(len(codes)) {
			t.Errorf("event %d has sequence %d", len(codes), e.GetSequence())
		}
		return nil
	})
	if err != nil || q.held != 0 {
		t.Errorf("drained with %v, %d bytes are held", err, q.held)
	}
	return codes
}

func TestQueueOrder(t *testing.T) {
	q := newQueue(defaultLimits, time.Hour, func(err error) { t.Error(err) })
	for _, p := range [][2]string{{"a", ""}, {"b1", "b"}, {"c1", "c"}, {"d", ""}, {"b2", "b"}, {"a", ""}, {"b3", "b"}, {"c2", "c"}} {
		q.push(event(p[0]), p[1])
	}
	q.close()
	q.push(event("late"), "")
	if got := drained(t, q); !slices.Equal(got, []string{"a", "d", "a", "b3", "c2"}) {
		t.Errorf("sent %v", got)
	}
}

// TestQueueOverflow: of what tells how a job goes the oldest is left out, and no image.
func TestQueueOverflow(t *testing.T) {
	for name, c := range map[string]struct {
		limits limits
		want   []string
	}{
		"events": {limits{events: 4, bytes: 1 << 20}, []string{"first", "image 1", "image 2", "5"}},
		"bytes":  {limits{events: 100, bytes: 100}, []string{"first", "image 1", "image 2", "5"}},
		"none":   {limits{events: 100, bytes: 1 << 20}, []string{"first", "1", "2", "image 1", "3", "4", "image 2", "5"}},
	} {
		q := newQueue(c.limits, time.Hour, func(err error) { t.Error(name, err) })
		q.pushAlways(event("first"))
		for i := range 5 {
			if i == 2 || i == 4 {
				q.pushImage(t.Context(), []*response{event(fmt.Sprint("image ", i/2))})
			}
			q.push(event(fmt.Sprint(i+1)), "")
		}
		q.close()
		if got := drained(t, q); !slices.Equal(got, c.want) {
			t.Errorf("%s: sent %v, want %v", name, got, c.want)
		}
	}
}

// TestQueueImageWaits: an image waits for as long as a slow reader takes something within patience, and no longer.
func TestQueueImageWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		q := newQueue(limits{events: 100, bytes: 1}, time.Minute, cancel) // one at a time
		for i := range 4 {
			go q.pushImage(ctx, []*response{event(fmt.Sprint("image ", i)), event(fmt.Sprint("its rest ", i))})
		}
		for i := range 6 { // of three images
			synctest.Wait()
			if n := len(q.items); n != 2-i%2 {
				t.Errorf("%d parts wait in the queue", n)
			}
			time.Sleep(59 * time.Second)
			q.pop()
		}
		synctest.Wait()
		if ctx.Err() != nil || len(q.items) != 2 {
			t.Errorf("a reader who takes something every minute: %v, %d parts", context.Cause(ctx), len(q.items))
		}
		go q.pushImage(ctx, []*response{event("too much")})
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if err := context.Cause(ctx); stage.ReasonOf(err) != stage.SlowConsumer || len(q.items) != 2 {
			t.Errorf("one who takes nothing: %v, %d parts", err, len(q.items))
		}
	})
}

func TestQueueSendFails(t *testing.T) {
	q := newQueue(defaultLimits, time.Hour, nil)
	q.push(event("a"), "")
	q.push(event("b"), "")
	failure := errors.New("gone")
	sends := 0
	if err := q.drain(func(*response) error { sends++; return failure }); !errors.Is(err, failure) || sends != 1 {
		t.Errorf("%v after %d sends", err, sends)
	}
}

// TestQueueAbandon: whatever a send is doing meanwhile, none begins afterwards.
func TestQueueAbandon(t *testing.T) {
	q := newQueue(defaultLimits, time.Hour, nil)
	q.push(event("a"), "")
	q.push(event("b"), "")
	blocked, release, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	sends := 0
	go func() {
		ended <- q.drain(func(*response) error {
			sends++
			close(blocked)
			<-release
			return nil
		})
	}()
	<-blocked
	q.abandon()
	close(release)
	if err := <-ended; err != nil || sends != 1 {
		t.Errorf("%v after %d sends", err, sends)
	}
}

// TestQueueConcurrent: nothing is lost between writers and a reader, and the writers' order is kept.
func TestQueueConcurrent(t *testing.T) {
	const writers, each = 4, 100
	q := newQueue(defaultLimits, time.Hour, nil)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				q.push(event(fmt.Sprint(w, " ", i)), "")
			}
		})
	}
	go func() {
		wg.Wait()
		q.close()
	}()
	next := map[string]int{}
	for _, code := range drained(t, q) {
		var w string
		var i int
		if _, err := fmt.Sscan(code, &w, &i); err != nil || i != next[w] {
			t.Errorf("%s follows %d: %v", code, next[w]-1, err)
		}
		next[w] = i + 1
	}
	if len(next) != writers || next["0"] != each {
		t.Errorf("got %v", next)
	}
}

func TestUnsent(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	other := errors.New("cannot be marshalled")
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want error
	}{
		{t.Context(), nil, nil},
		{gone, other, context.Canceled},
		{t.Context(), other, other},
	} {
		if got := unsent(c.ctx, c.err); !errors.Is(got, c.want) {
			t.Errorf("%v became %v", c.err, got)
		}
	}
}
