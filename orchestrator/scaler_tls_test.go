package orchestrator

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/internal/rpcserver"
	"github.com/triptych-serving/triptych/proto/externalscaler"
)

// certificate makes one for a name or an IP address that is its own authority.
func certificate(t *testing.T, host string) rpcserver.TLS {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "orchestrator"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, block string, data []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: block, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return rpcserver.TLS{CertFile: file("cert.pem", "CERTIFICATE", certificate), KeyFile: file("key.pem", "PRIVATE KEY", key)}
}

// TestScalerSpeaksTLS: with a certificate the scaler answers in TLS alone, as the API does.
func TestScalerSpeaksTLS(t *testing.T) {
	o := options()
	o.Stages, o.Scaler, o.TLS = stages(t, nil), listen(t), certificate(t, "127.0.0.1")
	run(t, o, listen(t))
	trusted, err := credentials.NewClientTLSFromFile(o.TLS.CertFile, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for want, creds := range map[codes.Code]credentials.TransportCredentials{codes.OK: trusted, codes.Unavailable: insecure.NewCredentials()} {
		conn, err := grpc.NewClient(o.Scaler.Addr().String(), grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		_, err = externalscaler.NewExternalScalerClient(conn).IsActive(ctx, &externalscaler.ScaledObjectRef{ScalerMetadata: map[string]string{"stage": "denoiser"}})
		if status.Code(err) != want {
			t.Errorf("by %s: %v, want %v", creds.Info().SecurityProtocol, err, want)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}
