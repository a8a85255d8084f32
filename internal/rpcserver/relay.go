package rpcserver

import (
	"net"
	"sync"
)

// Relay is a listener that servers take from one another without a moment in which nobody listens.
type Relay struct {
	lis      net.Listener
	accepted chan accepted
	over     chan struct{}
	close    func() error // idempotent
	pump     sync.WaitGroup
}

type accepted struct {
	conn net.Conn
	err  error
}

// NewRelay makes a relay of a listener, which is closed with it.
func NewRelay(lis net.Listener) *Relay {
	r := &Relay{lis: lis, accepted: make(chan accepted), over: make(chan struct{})}
	r.close = sync.OnceValue(func() error {
		close(r.over)
		err := lis.Close()
		r.pump.Wait()
		return err
	})
	r.pump.Go(func() {
		for {
			conn, err := lis.Accept()
			select {
			case r.accepted <- accepted{conn, err}:
			case <-r.over:
				if err == nil {
					_ = conn.Close()
				}
				return
			}
		}
	})
	return r
}

// Close ends the relay and its legs. Idempotent.
func (r *Relay) Close() error { return r.close() }

// Leg is the listener for one server, until that closes it. What arrives while there are several goes to any of them.
func (r *Relay) Leg() net.Listener {
	over := make(chan struct{})
	return leg{r, over, sync.OnceFunc(func() { close(over) })}
}

type leg struct {
	relay *Relay
	over  chan struct{}
	end   func()
}

// Accept implements net.Listener.
func (l leg) Accept() (net.Conn, error) {
	select {
	case <-l.over: // first of all, so that nothing is taken that another one could serve
		return nil, net.ErrClosed
	default:
	}
	select {
	case a := <-l.relay.accepted:
		return a.conn, a.err
	case <-l.over:
	case <-l.relay.over:
	}
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (l leg) Close() error {
	l.end()
	return nil
}

// Addr implements net.Listener.
func (l leg) Addr() net.Addr { return l.relay.lis.Addr() }
