package rpcserver

import (
	"errors"
	"net"
	"testing"
)

// TestRelay: who calls while one server gives way to the next one is served by that, and nobody is refused before the end.
func TestRelay(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := NewRelay(lis)
	call := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	serves := func(l net.Listener, caller net.Conn) {
		t.Helper()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if conn.RemoteAddr().String() != caller.LocalAddr().String() {
			t.Errorf("it serves %v, want %v", conn.RemoteAddr(), caller.LocalAddr())
		}
	}
	first := r.Leg()
	serves(first, call())
	waits := make(chan error)
	go func() {
		_, err := first.Accept()
		waits <- err
	}()
	for range 2 {
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-waits; !errors.Is(err, net.ErrClosed) {
		t.Errorf("who waits at a leg that ends: %v", err)
	}
	between := call()
	if _, err := first.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a leg that has ended: %v", err)
	}
	second := r.Leg()
	if second.Addr().String() != lis.Addr().String() {
		t.Errorf("its address is %v", second.Addr())
	}
	serves(second, between)
	serves(second, call())
	left := call()
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := second.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("behind the end: %v", err)
	}
	if _, err := left.Read(make([]byte, 1)); err == nil {
		t.Error("who was left is still connected")
	}
	if conn, err := net.Dial("tcp", lis.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("it listens behind its end")
	}
}
