//go:build linux

package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// authority issues certificates for 127.0.0.1 into a folder.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.sign(t, "ca", template, nil)
	return a
}

// sign writes NAME.pem and NAME-key.pem, each whole or not at all.
func (a *authority) sign(t *testing.T, name string, template, parent *x509.Certificate) (*x509.Certificate, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer := a.key
	if parent == nil {
		parent, signer = template, private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		path := filepath.Join(a.dir, file)
		if err := os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	return cert, private
}

// issue makes the certificate of a name, which ends so much from now.
func (a *authority) issue(t *testing.T, name string, ends time.Duration) {
	t.Helper()
	a.sign(t, name, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-47 * time.Hour), NotAfter: time.Now().Add(ends),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert)
}

func (a *authority) path(file string) string { return filepath.Join(a.dir, file) }

// TestExpiredCertificates: of a stage or an orchestrator whose certificate has expired, the log on both sides and the errors of requests
// say so, and since when. When the file is renewed all is well, and no process was started again.
func TestExpiredCertificates(t *testing.T) {
	a := newAuthority(t)
	args := []string{
		"orchestrator", "--listen", "127.0.0.1:0", "--patience", "1s",
		"--stage-ca", a.path("ca.pem"), "--stage-client-cert", a.path("orchestrator.pem"), "--stage-client-key", a.path("orchestrator-key.pem"),
	}
	services := map[string]*server{}
	for _, kind := range stage.Kinds() {
		name := kind.String()
		ends := 40 * time.Hour
		if kind == stage.KindDenoiser {
			ends = -time.Hour
		}
		a.issue(t, name, ends)
		services[name] = startServer(t, command(t, name, "--tls-cert", a.path(name+".pem"), "--tls-key", a.path(name+"-key.pem"), "--tls-client-ca", a.path("ca.pem")))
		args = append(args, "--"+name, services[name].conn.Target())
	}
	a.issue(t, "orchestrator", 40*time.Hour)
	s := startServer(t, command(t, args...))
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "cat", Seed: ptr(uint64(1)), Steps: ptr(int32(2))}
	// told waits until requests fail with some words.
	told := func(words string) {
		t.Helper()
		for soon := time.Now().Add(patience); ; {
			_, err := s.generate(t.Context(), spec, nil)
			if status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), words) {
				return
			}
			if time.Now().After(soon) {
				t.Fatalf("a request is told %v, want %q", err, words)
			}
		}
	}
	well := func() {
		t.Helper()
		for soon := time.Now().Add(patience); ; {
			_, err := s.generate(t.Context(), spec, nil)
			if err == nil {
				return
			}
			if status.Code(err) != codes.Unavailable || time.Now().After(soon) {
				t.Fatal(err)
			}
		}
	}
	told("its certificate has expired on 20")
	a.issue(t, "denoiser", 40*time.Hour)
	well()

	// Another orchestrator's has expired: it is the client.
	terminate(t, s).within(t, time.Minute)
	a.issue(t, "orchestrator", -time.Hour)
	s = startServer(t, command(t, args...))
	told("refuses the certificate of the client, which has expired")
	a.issue(t, "orchestrator", 40*time.Hour)
	well()
	terminate(t, s).within(t, time.Minute)
	if !strings.Contains(s.log.String(), "refuses the certificate of the client, which has expired") {
		t.Errorf("the orchestrator's log:\n%s", s.log)
	}
	d := services["denoiser"]
	terminate(t, d).within(t, time.Minute)
	for _, words := range []string{"our certificate has expired on 20", "the certificate of the client has expired on 20", "the certificates were read anew"} {
		if !strings.Contains(d.log.String(), words) {
			t.Errorf("the denoiser's log does not say %q:\n%s", words, d.log)
		}
	}
}
