package rpcserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

const (
	// lookInterval is how often files are looked at, where there are handshakes.
	lookInterval = time.Second
	// expiresSoon is how long before its end a certificate is told to be renewed.
	expiresSoon = 24 * time.Hour
)

// reloaded are transport credentials that follow their files: a handshake has what the files hold then, or a second before. What is
// in them is compared, and not their times, so that it does not matter how they are replaced. Files that cannot be used leave the
// credentials as they are. Connections that stand are left alone. Safe for concurrent use.
type reloaded struct {
	log   *slog.Logger
	now   func() time.Time
	load  func(files) (*tls.Config, error)
	paths []string

	mu      sync.Mutex
	looked  time.Time
	seen    files // that config is made of
	problem string
	config  *tls.Config // that creds are made of
	creds   credentials.TransportCredentials
	own     *x509.Certificate // nil if there is none
	told    string            // what was said of its validity
}

var _ credentials.TransportCredentials = (*reloaded)(nil)

// reload makes credentials of files; paths may be empty. The error is why the files cannot be used now.
func reload(log *slog.Logger, load func(files) (*tls.Config, error), paths ...string) (*reloaded, error) {
	r := &reloaded{log: log, now: time.Now, load: load, paths: slices.DeleteFunc(paths, func(path string) bool { return path == "" })}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	pem, err := read(r.paths)
	if err == nil {
		err = r.use(pem)
	}
	if err != nil {
		return nil, err
	}
	r.looked, r.seen = now, pem
	r.tellValidity(now)
	return r, nil
}

// read gives what is in files.
func read(paths []string) (files, error) {
	pem := files{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		pem[path] = data
	}
	return pem, nil
}

// use makes the credentials of the next handshakes. mu is held.
func (r *reloaded) use(pem files) error {
	config, err := r.load(pem)
	if err != nil {
		return err
	}
	r.config, r.creds, r.own = config, credentials.NewTLS(config), nil
	if len(config.Certificates) > 0 {
		r.own = config.Certificates[0].Leaf
	}
	return nil
}

// current is the credentials for a handshake now, and their certificate.
func (r *reloaded) current() (credentials.TransportCredentials, *x509.Certificate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); now.Sub(r.looked) >= lookInterval {
		r.looked = now
		r.look()
		r.tellValidity(now)
	}
	return r.creds, r.own
}

// look takes up files that have changed. mu is held.
func (r *reloaded) look() {
	pem, err := read(r.paths)
	if err == nil && r.problem == "" && maps.EqualFunc(pem, r.seen, bytes.Equal) {
		return
	}
	if err == nil {
		err = r.use(pem)
	}
	if err != nil { // they may have been replaced between the reading of one and the other
		if pem, err = read(r.paths); err == nil {
			err = r.use(pem)
		}
	}
	if err == nil {
		r.seen, r.problem = pem, ""
		r.log.Info("the certificates were read anew", "files", r.paths)
		return
	}
	if problem := err.Error(); problem != r.problem {
		r.problem = problem
		r.log.Error("changed certificates cannot be used, those from before stay", "error", err)
	}
}

// tellValidity logs a certificate of our own that is not valid, or soon no more, once. mu is held.
func (r *reloaded) tellValidity(now time.Time) {
	said := ""
	if r.own != nil {
		if said = invalid(r.own, now); said == "" && now.Add(expiresSoon).After(r.own.NotAfter) {
			said = "expires on " + stamp(r.own.NotAfter)
		}
	}
	if said != "" && said != r.told {
		r.log.Warn("our certificate "+said, "files", r.paths, "subject", r.own.Subject.String())
	}
	r.told = said
}

// invalid says in words that a certificate is not valid at a time, empty if it is.
func invalid(c *x509.Certificate, now time.Time) string {
	switch {
	case now.After(c.NotAfter):
		return "has expired on " + stamp(c.NotAfter)
	case now.Before(c.NotBefore):
		return "is not valid before " + stamp(c.NotBefore)
	}
	return ""
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

// ClientHandshake is that of the present credentials.
func (r *reloaded) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	creds, _ := r.current()
	return creds.ClientHandshake(ctx, authority, conn)
}

// ServerHandshake is that of the present credentials.
func (r *reloaded) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	creds, _ := r.current()
	return creds.ServerHandshake(conn)
}

// Info is that of the present credentials.
func (r *reloaded) Info() credentials.ProtocolInfo {
	creds, _ := r.current()
	return creds.Info()
}

// Clone shares what is known of the files.
func (r *reloaded) Clone() credentials.TransportCredentials { return r }

// OverrideServerName is not supported: the name is a part of ClientTLS.
func (r *reloaded) OverrideServerName(string) error {
	return errors.New("tls: the name of the server is given by ClientTLS")
}
