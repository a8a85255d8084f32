package rpcserver

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
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
	*reloaded
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
	creds, own := c.current()
	secure, info, err := creds.ServerHandshake(conn)
	if err != nil {
		c.told.tell(conn.RemoteAddr(), refused(err, own, c.now()))
	}
	return secure, info, err
}

// Clone shares what was logged.
func (c toldHandshakes) Clone() credentials.TransportCredentials { return c }

// tell logs why a peer's handshake was refused, unless it has just been logged.
func (r *refusals) tell(from net.Addr, cause string) {
	peer := from.String()
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

// refused is why the handshake of a server with a certificate failed, in words; empty for a peer that only came and went.
func refused(err error, own *x509.Certificate, now time.Time) string {
	var (
		header  tls.RecordHeaderError
		remote  *net.OpError
		expired x509.CertificateInvalidError
	)
	switch {
	case errors.Is(err, io.EOF):
		return ""
	case errors.As(err, &header):
		return "the client does not speak TLS"
	case errors.As(err, &remote) && remote.Op == "remote error":
		words := "the client refuses: " + strings.TrimPrefix(remote.Err.Error(), "tls: ")
		if why := invalid(own, now); why != "" {
			words += "; our certificate " + why
		}
		return words
	case errors.As(err, &remote):
		return ""
	case errors.As(err, &expired) && expired.Reason == x509.Expired:
		return "the certificate of the client " + cmp.Or(invalid(expired.Cert, now), "was not valid")
	}
	return strings.TrimPrefix(err.Error(), "tls: ")
}
