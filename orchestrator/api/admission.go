package api

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/triptych-serving/triptych/stage"
)

// The bounds of what a caller is told to wait before it asks again.
const (
	shortestRetry = time.Second
	longestRetry  = time.Minute
)

// pace is how long requests hold their places, so that those who find none are told when one is likely to be free.
type pace struct {
	mu   sync.Mutex
	mean time.Duration // of the last ones, 0 before the first
}

// spent counts a request that held its place for so long.
func (p *pace) spent(d time.Duration) {
	const weight = 8 // of what was, against the new one
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mean == 0 {
		p.mean = d
	}
	p.mean += (d - p.mean) / weight
}

// next is when the next of so many places is likely to be free.
func (p *pace) next(places int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(max(p.mean/time.Duration(places), shortestRetry), longestRetry)
}

// watches counts who watches, each peer for itself, so that one of them cannot take every place.
type watches struct {
	most, each int

	mu   sync.Mutex
	all  int
	held map[string]int // by peer
}

func newWatches(most, each int) *watches {
	return &watches{most: most, each: each, held: map[string]int{}}
}

// enter takes a place for a peer until leave. QueueFull.
func (w *watches) enter(from string) (leave func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.all >= w.most:
		return nil, full(shortestRetry, "%d callers watch already, try again later", w.all)
	case w.held[from] >= w.each:
		return nil, full(shortestRetry, "%d callers from %s watch already, which is the most for one address; try again later", w.each, from)
	}
	w.all++
	w.held[from]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.all--
		if w.held[from]--; w.held[from] == 0 {
			delete(w.held, from)
		}
	}, nil
}

func full(after time.Duration, format string, args ...any) *stage.Error {
	e := stage.Errorf(stage.QueueFull, format, args...)
	e.RetryAfter = after
	return e
}

// peerOf is the host that a call comes from, whatever its port.
func peerOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "nowhere"
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}
