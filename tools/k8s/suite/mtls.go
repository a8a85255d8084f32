//go:build linux

package suite

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/triptych-serving/triptych/tools/k8s/cluster"
)

// mutual is TLS with certificates on both sides, from secrets.
func mutual() theme {
	var authority *cluster.Authority
	var client credentials.TransportCredentials
	setup := func(ctx context.Context, t *T) (err error) {
		if authority, err = cluster.NewAuthority("test"); err != nil {
			return err
		}
		if client, err = callerOf(authority); err != nil {
			return err
		}
		return errors.Join(t.certificates(ctx, authority, time.Time{}), t.Install(ctx, t.secured()))
	}
	return theme{name: "mutual TLS", needs: realNode, setup: setup, checks: []check{
		{"a caller with a certificate has the same picture", func(ctx context.Context, t *T) error { return t.securely(ctx, client) }},
		{"a caller without one, and one in plaintext, are refused", func(ctx context.Context, t *T) error { return t.insecurely(ctx, authority) }},
		{"helm test makes a picture over TLS", helmTest},
		{"certificates that are renewed are used without a restart, also when the authority changes", func(ctx context.Context, t *T) error { return t.renewed(ctx) }},
		{"uninstall leaves nothing but the secrets that were there before", uninstallBut("secret/stages", "secret/orchestrator")},
	}}
}

// callerOf are credentials of a caller whom the authority knows.
func callerOf(authority *cluster.Authority) (credentials.TransportCredentials, error) {
	pair, err := authority.Issue(cluster.Subject{Name: "caller"})
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(pair.Cert, pair.Key)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.PEM)
	return credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots, MinVersion: tls.VersionTLS12}), err
}

// securely makes a picture with credentials.
func (t *T) securely(ctx context.Context, caller credentials.TransportCredentials) error {
	conn, err := t.dial(caller)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return t.same(ctx, conn, picture{}, nil)
}

func (t *T) insecurely(ctx context.Context, authority *cluster.Authority) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.PEM)
	for what, caller := range map[string]credentials.TransportCredentials{
		"without a certificate": credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}),
		"in plaintext":          nil,
	} {
		if err := t.securely(ctx, caller); err == nil {
			return fmt.Errorf("a caller %s was served", what)
		}
	}
	return nil
}

// renewed replaces every certificate by those of another authority, in the order of an operator: the
// kubelet brings the new files within about a minute.
func (t *T) renewed(ctx context.Context) error {
	authority, err := cluster.NewAuthority("renewed")
	if err != nil {
		return err
	}
	client, err := callerOf(authority)
	if err != nil {
		return err
	}
	before, err := t.pods(ctx, "")
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := t.certificates(ctx, authority, time.Time{}); err != nil {
		return err
	}
	if err := eventually(ctx, 3*time.Minute, func(ctx context.Context) error { return t.securely(ctx, client) }); err != nil {
		return err
	}
	t.Measure("renewed secrets, authority included: used after %.0f s without a restart (the kubelet brings them within about a minute)", time.Since(begun).Seconds())
	after, err := t.pods(ctx, "")
	if err != nil {
		return err
	}
	for _, p := range after {
		for _, c := range p.Status.ContainerStatuses {
			if c.RestartCount > 0 {
				return fmt.Errorf("%s was started again", p.Metadata.Name)
			}
		}
	}
	if len(before) != len(after) {
		return fmt.Errorf("%d pods, there were %d", len(after), len(before))
	}
	return nil
}
