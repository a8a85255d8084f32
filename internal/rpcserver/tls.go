package rpcserver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// TLS names the PEM files of a server. The zero value is plaintext.
type TLS struct {
	CertFile, KeyFile string
	// ClientCAFile has the authorities of clients. When it is set, a client without a certificate
	// from one of them is refused (mTLS).
	ClientCAFile string
}

// ClientTLS names the PEM files of a client. The zero value is plaintext.
type ClientTLS struct {
	// CAFile has the authorities of servers; empty takes those of the system if anything else is set.
	CAFile string
	// CertFile and KeyFile are shown to servers that ask (mTLS).
	CertFile, KeyFile string
	// ServerName is what the server's certificate must be for; empty takes the host of the address.
	ServerName string
}

// credentials are nil for plaintext.
func (t TLS) credentials() (credentials.TransportCredentials, error) {
	if t == (TLS{}) {
		return nil, nil
	}
	if t.CertFile == "" || t.KeyFile == "" {
		return nil, fmt.Errorf("tls: a server needs both a certificate file and a key file, got %q and %q",
			t.CertFile, t.KeyFile)
	}
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("tls: load %s and %s: %w", t.CertFile, t.KeyFile, err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}
	if t.ClientCAFile != "" {
		if config.ClientCAs, err = loadAuthorities(t.ClientCAFile); err != nil {
			return nil, err
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return credentials.NewTLS(config), nil
}

// DialCredentials are the transport credentials of a client.
func DialCredentials(t ClientTLS) (credentials.TransportCredentials, error) {
	if t == (ClientTLS{}) {
		return insecure.NewCredentials(), nil
	}
	config, err := t.config()
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(config), nil
}

// config reads the files.
func (t ClientTLS) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: t.ServerName}
	if t.CAFile != "" {
		var err error
		if config.RootCAs, err = loadAuthorities(t.CAFile); err != nil {
			return nil, err
		}
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, fmt.Errorf("tls: a client certificate needs both a certificate file and a key file, got %q and %q",
			t.CertFile, t.KeyFile)
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls: load %s and %s: %w", t.CertFile, t.KeyFile, err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

// loadAuthorities reads a file of CA certificates.
func loadAuthorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tls: read authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls: %s has no PEM certificate", file)
	}
	return pool, nil
}
