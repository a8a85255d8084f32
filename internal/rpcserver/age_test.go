package rpcserver

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/emptypb"
)

// TestConnectionAge: callers come over another connection once one is old, while a stream goes on over the old one until it
// ends by itself.
func TestConnectionAge(t *testing.T) {
	peers, end := make(chan string, 1), make(chan struct{})
	r := serve(t, Options{MaxConnectionAge: 20 * time.Millisecond}, func(ctx context.Context) error {
		p, _ := peer.FromContext(ctx)
		peers <- p.Addr.String()
		if method, _ := grpc.Method(ctx); method != "/"+service+"/Stream" {
			return nil
		}
		select {
		case <-end:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn := dial(t, r.addr)
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/"+service+"/Stream")
	if err != nil {
		t.Fatal(err)
	}
	for over := map[string]bool{<-peers: true}; len(over) < 4; over[<-peers] = true {
		if err := callUnary(ctx, conn); err != nil {
			t.Fatal(err)
		}
	}
	close(end)
	if err := stream.RecvMsg(&emptypb.Empty{}); !errors.Is(err, io.EOF) {
		t.Errorf("the stream over the old connection ended with %v", err)
	}
}
