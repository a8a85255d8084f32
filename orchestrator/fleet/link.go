package fleet

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// link is the connection to a service. It can be retired: calls under way end as they would, later ones find nobody.
type link struct {
	*grpc.ClientConn

	mu      sync.Mutex
	calls   int // under way
	retired bool
	idle    chan struct{} // closed once it is retired and no call is under way
}

func newLink(conn *grpc.ClientConn) *link { return &link{ClientConn: conn, idle: make(chan struct{})} }

// gone is a link to nobody.
func gone() *link { return &link{retired: true} }

// Invoke implements grpc.ClientConnInterface.
func (l *link) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if err := l.begin(); err != nil {
		return err
	}
	defer l.end()
	return l.ClientConn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (l *link) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if err := l.begin(); err != nil {
		return nil, err
	}
	return l.ClientConn.NewStream(ctx, desc, method, append(opts, grpc.OnFinish(func(error) { l.end() }))...)
}

// begin counts a call, or tells that there is nobody.
func (l *link) begin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.retired {
		return status.Error(codes.Unavailable, "the service is gone")
	}
	l.calls++
	return nil
}

func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls--; l.retired && l.calls == 0 {
		close(l.idle)
	}
}

// retire lets no further call begin, and closes the connection when the last one has ended, or ctx has.
func (l *link) retire(ctx context.Context) error {
	l.mu.Lock()
	if l.retired = true; l.calls == 0 {
		close(l.idle)
	}
	l.mu.Unlock()
	select {
	case <-l.idle:
	case <-ctx.Done():
	}
	return l.Close()
}
