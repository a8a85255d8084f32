package stageplugin

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// credentials are a key and a certificate that the parent makes for one child and writes to its standard
// input. Both show this certificate and accept no other. go-plugin would make a pair of its own on each side
// (AutoMTLS), on a curve that takes half of the time a child needs to start.
type credentials struct {
	certificate *x509.Certificate // signed by itself
	key         ed25519.PrivateKey
}

const (
	lineHost = "localhost" // the name in the certificate
	// The certificate outlives every child, and clocks are set back.
	lineBefore, lineAfter = 24 * time.Hour, 10 * 365 * 24 * time.Hour
)

func newCredentials() (credentials, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return credentials{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{lineHost}, NotBefore: now.Add(-lineBefore), NotAfter: now.Add(lineAfter),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return credentials{}, err
	}
	certificate, err := x509.ParseCertificate(der)
	return credentials{certificate, private}, err
}

// config is both sides' of the connection.
func (c credentials) config() *tls.Config {
	only := x509.NewCertPool()
	only.AddCert(c.certificate)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{c.certificate.Raw}, PrivateKey: c.key, Leaf: c.certificate}},
		RootCAs:      only, ServerName: lineHost,
		ClientCAs: only, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: tls.VersionTLS13,
	}
}

// line is what the parent writes: certificate and the key's seed in base64.
func (c credentials) line() string {
	encode := base64.StdEncoding.EncodeToString
	return encode(c.certificate.Raw) + " " + encode(c.key.Seed()) + "\n"
}

// readCredentials reads a line.
func readCredentials(r *bufio.Reader) (credentials, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return credentials{}, fmt.Errorf("no credentials from the parent: %w", err)
	}
	certificate, seed, _ := strings.Cut(strings.TrimSpace(line), " ")
	der, errCert := base64.StdEncoding.DecodeString(certificate)
	key, errKey := base64.StdEncoding.DecodeString(seed)
	parsed, err := x509.ParseCertificate(der)
	if len(key) != ed25519.SeedSize {
		err = errors.Join(err, fmt.Errorf("a key of %d bytes", len(key)))
	}
	if err = errors.Join(errCert, errKey, err); err != nil {
		return credentials{}, fmt.Errorf("the parent's line has no certificate and key, is it of this version? %w", err)
	}
	return credentials{parsed, ed25519.NewKeyFromSeed(key)}, nil
}
