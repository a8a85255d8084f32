package stagetest

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/triptych-serving/triptych/stage/stagerpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// Connect starts a server in memory with what register registers and options beside the usual ones, and connects to it.
// Both end with the test.
func Connect(t testing.TB, register func(grpc.ServiceRegistrar), options ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(append(stagerpc.ServerOptions(), options...)...)
	register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // it may not have begun
			t.Errorf("the server in memory ended with: %v", err)
		}
	})
	conn, err := grpc.NewClient("passthrough:///memory", append(stagerpc.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
	)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("closing the connection in memory: %v", err)
		}
	})
	return conn
}
