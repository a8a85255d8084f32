package rpcserver

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// authority makes certificates and their files.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string

	validity time.Duration // of what is issued, from now; 0 is an hour
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = newKey(t)
	a.cert = a.sign(t, template, template, a.key)
	a.file = a.write(t, "ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(t *testing.T, template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(a.dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// issue makes a certificate for 127.0.0.1, for one use.
func (a *authority) issue(t *testing.T, name string, usage x509.ExtKeyUsage) (certFile, keyFile string) {
	t.Helper()
	key := newKey(t)
	cert := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(cmp.Or(a.validity, time.Hour)),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}, a.cert, key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return a.write(t, name+".pem", "CERTIFICATE", cert.Raw), a.write(t, name+"-key.pem", "PRIVATE KEY", der)
}

func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	serverCert, serverKey := ours.issue(t, "server", x509.ExtKeyUsageServerAuth)
	clientCert, clientKey := ours.issue(t, "client", x509.ExtKeyUsageClientAuth)
	otherCert, otherKey := theirs.issue(t, "client", x509.ExtKeyUsageClientAuth)
	ok := func(context.Context) error { return nil }
	plain := serve(t, Options{}, ok)
	oneWay := serve(t, Options{TLS: TLS{CertFile: serverCert, KeyFile: serverKey}}, ok)
	mutual := serve(t, Options{TLS: TLS{CertFile: serverCert, KeyFile: serverKey, ClientCAFile: ours.file}}, ok)
	for _, c := range []struct {
		name   string
		server *running
		client ClientTLS
		want   codes.Code
	}{
		{"plain", plain, ClientTLS{}, codes.OK},
		{"TLS", oneWay, ClientTLS{CAFile: ours.file}, codes.OK},
		{"plain client of TLS", oneWay, ClientTLS{}, codes.Unavailable},
		{"authority of another", oneWay, ClientTLS{CAFile: theirs.file}, codes.Unavailable},
		{"authorities of the system", oneWay, ClientTLS{ServerName: "127.0.0.1"}, codes.Unavailable},
		{"other server name", oneWay, ClientTLS{CAFile: ours.file, ServerName: "example.org"}, codes.Unavailable},
		{"mTLS", mutual, ClientTLS{CAFile: ours.file, CertFile: clientCert, KeyFile: clientKey}, codes.OK},
		{"mTLS without certificate", mutual, ClientTLS{CAFile: ours.file}, codes.Unavailable},
		{"mTLS with certificate of another", mutual, ClientTLS{CAFile: ours.file, CertFile: otherCert, KeyFile: otherKey}, codes.Unavailable},
		{"mTLS with a server's certificate", mutual, ClientTLS{CAFile: ours.file, CertFile: serverCert, KeyFile: serverKey}, codes.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			creds, err := DialCredentials(c.client, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			conn := dial(t, c.server.addr, grpc.WithTransportCredentials(creds))
			if err := callUnary(t.Context(), conn); status.Code(err) != c.want {
				t.Errorf("the call gave %v, expected %v", err, c.want)
			}
		})
	}
}

func TestTLSOptions(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue(t, "server", x509.ExtKeyUsageServerAuth)
	empty := filepath.Join(a.dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]struct {
		tls  TLS
		says string
	}{
		"no key":             {TLS{CertFile: cert}, "both"},
		"no certificate":     {TLS{ClientCAFile: a.file}, "both"},
		"no such file":       {TLS{CertFile: cert, KeyFile: "/nowhere/key.pem"}, "/nowhere/key.pem"},
		"wrong key":          {TLS{CertFile: a.file, KeyFile: key}, "ca.pem"},
		"no authorities":     {TLS{CertFile: cert, KeyFile: key, ClientCAFile: empty}, "empty.pem"},
		"unread authorities": {TLS{CertFile: cert, KeyFile: key, ClientCAFile: a.dir}, a.dir},
	} {
		if _, err := New(Options{TLS: o.tls}); err == nil || !strings.Contains(err.Error(), o.says) {
			t.Errorf("%s: New = %v", name, err)
		}
	}
	for name, o := range map[string]struct {
		tls  ClientTLS
		says string
	}{
		"no key":         {ClientTLS{CertFile: cert}, "both"},
		"no such file":   {ClientTLS{CertFile: cert, KeyFile: "/nowhere/key.pem"}, "/nowhere/key.pem"},
		"no authorities": {ClientTLS{CAFile: empty}, "empty.pem"},
	} {
		if _, err := DialCredentials(o.tls, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), o.says) {
			t.Errorf("%s: DialCredentials = %v", name, err)
		}
	}
	creds, err := DialCredentials(ClientTLS{}, slog.New(slog.DiscardHandler))
	if err != nil || creds.Info().SecurityProtocol != insecure.NewCredentials().Info().SecurityProtocol {
		t.Errorf("the zero ClientTLS is not plaintext: %v", err)
	}
}

// TestDiagnose: every wrong way to speak to a server is told in words.
func TestDiagnose(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	serverCert, serverKey := ours.issue(t, "server", x509.ExtKeyUsageServerAuth)
	clientCert, clientKey := ours.issue(t, "client", x509.ExtKeyUsageClientAuth)
	otherCert, otherKey := theirs.issue(t, "client", x509.ExtKeyUsageClientAuth)
	ours.validity = -30 * time.Minute
	oldCert, oldKey := ours.issue(t, "old", x509.ExtKeyUsageServerAuth)
	ok := func(context.Context) error { return nil }
	plain := serve(t, Options{}, ok).addr
	oneWay := serve(t, Options{TLS: TLS{CertFile: serverCert, KeyFile: serverKey}}, ok).addr
	mutual := serve(t, Options{TLS: TLS{CertFile: serverCert, KeyFile: serverKey, ClientCAFile: ours.file}}, ok).addr
	expired := serve(t, Options{TLS: TLS{CertFile: oldCert, KeyFile: oldKey}}, ok).addr
	trusting := ClientTLS{CAFile: ours.file}
	for _, c := range []struct {
		name, target string
		client       ClientTLS
		says         string
	}{
		{"plain", plain, ClientTLS{}, ""},
		{"TLS", oneWay, trusting, ""},
		{"mTLS", mutual, ClientTLS{CAFile: ours.file, CertFile: clientCert, KeyFile: clientKey}, ""},
		{"TLS by a name of gRPC's", "dns:///" + oneWay, ClientTLS{}, SpeaksTLS},
		{"plain client of TLS", oneWay, ClientTLS{}, SpeaksTLS},
		{"plain client of mTLS", mutual, ClientTLS{}, SpeaksTLS},
		{"TLS client of plain", plain, trusting, SpeaksPlain},
		{"authority of another", oneWay, ClientTLS{CAFile: theirs.file}, "not known"},
		{"authorities of the system", oneWay, ClientTLS{ServerName: "127.0.0.1"}, "not known"},
		{"other server name", oneWay, ClientTLS{CAFile: ours.file, ServerName: "example.org"}, "another name"},
		{"expired", expired, trusting, "expired"},
		{"client's certificate for a server", oneWay, ClientTLS{CAFile: ours.file, CertFile: clientCert, KeyFile: clientKey}, ""},
		{"mTLS without certificate", mutual, trusting, "wants a certificate of the client, from an authority that it knows"},
		{"mTLS with certificate of another", mutual, ClientTLS{CAFile: ours.file, CertFile: otherCert, KeyFile: otherKey}, "refuses the certificate"},
		{"nobody", closedPort(t), ClientTLS{}, "nobody listens"},
		{"unknown host", "nobody.invalid:1", ClientTLS{}, "nobody.invalid"},
		{"HTTP", scripted(t, "HTTP/1.1 400 Bad Request\r\n\r\n"), ClientTLS{}, "HTTP/1"},
		{"something else", scripted(t, "SSH-2.0-OpenSSH_9.9\r\n"), ClientTLS{}, "not speak gRPC"},
		{"something else in TLS", scripted(t, "SSH-2.0-OpenSSH_9.9\r\n"), trusting, SpeaksPlain},
		{"a socket", "unix:/nowhere", ClientTLS{}, ""},
	} {
		if got := Diagnose(t.Context(), c.target, c.client); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q, want %q", c.name, got, c.says)
		}
	}
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

// scripted is the address of a server that says one thing to everybody.
func scripted(t *testing.T, says string) string {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(says))
			_, _ = conn.Read(make([]byte, 1<<10)) // so that closing does not reset what was written
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = lis.Close()
		<-done
	})
	return lis.Addr().String()
}

// TestRefusedHandshakes: a server tells each peer's refused handshake once for each cause, and no port scan.
func TestRefusedHandshakes(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	cert, key := ours.issue(t, "server", x509.ExtKeyUsageServerAuth)
	otherCert, otherKey := theirs.issue(t, "client", x509.ExtKeyUsageClientAuth)
	var log buffer
	server := serve(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), TLS: TLS{CertFile: cert, KeyFile: key, ClientCAFile: ours.file}}, func(context.Context) error { return nil })
	scan, err := net.Dial("tcp", server.addr)
	if err != nil {
		t.Fatal(err)
	}
	scan.Close()
	for range 3 {
		for _, client := range []ClientTLS{{}, {CAFile: theirs.file}, {CAFile: ours.file}, {CAFile: ours.file, CertFile: otherCert, KeyFile: otherKey}} {
			Diagnose(t.Context(), server.addr, client)
		}
	}
	server.stop()
	if err := <-server.done; err != nil { // nothing is under way any more
		t.Fatal(err)
	}
	for _, cause := range []string{"does not speak TLS", "the client refuses", "didn't provide a certificate", "unknown authority"} {
		if !strings.Contains(log.String(), cause) {
			t.Errorf("%q is not told", cause)
		}
	}
	if n := strings.Count(log.String(), "a handshake was refused"); n != 4 {
		t.Errorf("%d lines, want one for each cause:\n%s", n, log.String())
	}
}

// TestRefusalsAreBounded: the same cause is told again after a while, and peers are not remembered without end.
func TestRefusalsAreBounded(t *testing.T) {
	var log buffer
	r := newRefusals(slog.New(slog.NewTextHandler(&log, nil)))
	told := func() int { return strings.Count(log.String(), "a handshake was refused") }
	now := time.Unix(0, 0)
	r.now = func() time.Time { return now }
	peer := func(n int) net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, byte(n>>8), byte(n)), Port: n} }
	const cause = "too old"
	r.tell(peer(1), cause)
	now = now.Add(refusalPause - 1)
	r.tell(peer(1), cause)
	if n := told(); n != 1 {
		t.Errorf("told %d times within the pause", n)
	}
	now = now.Add(1)
	r.tell(peer(1), cause)
	if n := told(); n != 2 {
		t.Errorf("told %d times behind the pause", n)
	}
	for n := range 3 * maxRefusals {
		r.tell(peer(n), cause)
	}
	if len(r.last) > maxRefusals {
		t.Errorf("%d are remembered", len(r.last))
	}
}
