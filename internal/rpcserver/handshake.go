package rpcserver

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

const (
	// refusalPause is how long a refused handshake of one peer for one cause is not told again: clients try every second.
	refusalPause = 10 * time.Minute
	// maxRefusals bounds what is remembered of peers, who may be many.
	maxRefusals = 1000
)

// toldHandshakes are credentials of a server that log which handshakes it refuses, or had refused, and why.
type toldHandshakes struct {
	credentials.TransportCredentials
	told *refusals
}

// refusals remembers what was logged. Safe for concurrent use.
type refusals struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	last map[[2]string]time.Time // by peer and cause
}

func newRefusals(log *slog.Logger) *refusals {
	return &refusals{log: log, now: time.Now, last: map[[2]string]time.Time{}}
}

// ServerHandshake is the credentials', told if it fails.
func (c toldHandshakes) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := c.TransportCredentials.ServerHandshake(conn)
	if err != nil {
		c.told.tell(conn.RemoteAddr(), err)
	}
	return secure, info, err
}

// Clone shares what was logged.
func (c toldHandshakes) Clone() credentials.TransportCredentials {
	return toldHandshakes{c.TransportCredentials.Clone(), c.told}
}

// tell logs a peer's refused handshake, unless it has just been logged.
func (r *refusals) tell(from net.Addr, err error) {
	peer, cause := from.String(), refused(err)
	if host, _, err := net.SplitHostPort(peer); err == nil {
		peer = host
	}
	if cause == "" { // who looks whether the port is open says nothing
		return
	}
	now, key := r.now(), [2]string{peer, cause}
	r.mu.Lock()
	last, known := r.last[key]
	fresh := !known || now.Sub(last) >= refusalPause
	if fresh {
		if len(r.last) >= maxRefusals {
			clear(r.last)
		}
		r.last[key] = now
	}
	r.mu.Unlock()
	if fresh {
		r.log.Warn("a handshake was refused", "peer", peer, "cause", cause)
	}
}

// refused is why a server's handshake failed, in words; empty for a peer that only came and went.
func refused(err error) string {
	var (
		header tls.RecordHeaderError
		remote *net.OpError
	)
	switch {
	case errors.Is(err, io.EOF):
		return ""
	case errors.As(err, &header):
		return "the client does not speak TLS"
	case errors.As(err, &remote) && remote.Op == "remote error":
		return "the client refuses: " + strings.TrimPrefix(remote.Err.Error(), "tls: ")
	case errors.As(err, &remote):
		return ""
	}
	return strings.TrimPrefix(err.Error(), "tls: ")
}
