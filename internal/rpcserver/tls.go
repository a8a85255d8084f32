package rpcserver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// TLS names the PEM files of a server, which are read anew when they change. The zero value is plaintext.
type TLS struct {
	CertFile, KeyFile string
	// ClientCAFile has the authorities of clients. When it is set, a client without a certificate
	// from one of them is refused (mTLS).
	ClientCAFile string
}

// ClientTLS names the PEM files of a client, which are read anew when they change. The zero value is plaintext.
type ClientTLS struct {
	// CAFile has the authorities of servers; empty takes those of the system if anything else is set.
	CAFile string
	// CertFile and KeyFile are shown to servers that ask (mTLS).
	CertFile, KeyFile string
	// ServerName is what the server's certificate must be for; empty takes the host of the address.
	ServerName string
}

// credentials are nil for plaintext.
func (t TLS) credentials(log *slog.Logger) (*reloaded, error) {
	if t == (TLS{}) {
		return nil, nil
	}
	if t.CertFile == "" || t.KeyFile == "" {
		return nil, fmt.Errorf("tls: a server needs both a certificate file and a key file, got %q and %q",
			t.CertFile, t.KeyFile)
	}
	return reload(log, t.config, t.CertFile, t.KeyFile, t.ClientCAFile)
}

// config is made of the files.
func (t TLS) config(pem files) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	var err error
	if config.Certificates, err = pem.pair(t.CertFile, t.KeyFile); err != nil {
		return nil, err
	}
	if t.ClientCAFile != "" {
		if config.ClientCAs, err = pem.authorities(t.ClientCAFile); err != nil {
			return nil, err
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, nil
}

// DialCredentials are the transport credentials of a client. The log, slog.Default if nil, gets what becomes of the files.
func DialCredentials(t ClientTLS, log *slog.Logger) (credentials.TransportCredentials, error) {
	if t == (ClientTLS{}) {
		return insecure.NewCredentials(), nil
	}
	if log == nil {
		log = slog.Default()
	}
	return reload(log, t.config, t.CAFile, t.CertFile, t.KeyFile)
}

// config is made of the files.
func (t ClientTLS) config(pem files) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: t.ServerName}
	var err error
	if t.CAFile != "" {
		if config.RootCAs, err = pem.authorities(t.CAFile); err != nil {
			return nil, err
		}
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, fmt.Errorf("tls: a client certificate needs both a certificate file and a key file, got %q and %q",
			t.CertFile, t.KeyFile)
	}
	if t.CertFile != "" {
		if config.Certificates, err = pem.pair(t.CertFile, t.KeyFile); err != nil {
			return nil, err
		}
	}
	return config, nil
}

// files is what is in PEM files, by path.
type files map[string][]byte

// pair is a certificate and its key.
func (f files) pair(cert, key string) ([]tls.Certificate, error) {
	pair, err := tls.X509KeyPair(f[cert], f[key])
	if err != nil {
		return nil, fmt.Errorf("tls: load %s and %s: %w", cert, key, err)
	}
	return []tls.Certificate{pair}, nil
}

// authorities are the CA certificates of a file.
func (f files) authorities(file string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(f[file]) {
		return nil, fmt.Errorf("tls: %s has no PEM certificate", file)
	}
	return pool, nil
}
