//go:build linux

package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// An Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	PEM  []byte // its own certificate
}

// A Pair is a certificate with its key, both PEM.
type Pair struct{ Cert, Key []byte }

// A Subject is whom a certificate is for. Names are host names and IP addresses.
type Subject struct {
	Name   string
	Groups []string
	Names  []string
	// Until when it is valid; a day from now if zero.
	Until time.Time
}

// NewAuthority makes an authority that is valid for a month.
func NewAuthority(name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(0, 1, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{cert: cert, key: key, PEM: encodePEM("CERTIFICATE", der)}, err
}

// Issue makes a certificate for servers and clients.
func (a *Authority) Issue(s Subject) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return Pair{}, err
	}
	if s.Until.IsZero() {
		s.Until = time.Now().AddDate(0, 0, 1)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.Name, Organization: s.Groups},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     s.Until,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range s.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return Pair{}, err
	}
	return encodePair(der, key)
}

func encodePair(der []byte, key *ecdsa.PrivateKey) (Pair, error) {
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	return Pair{Cert: encodePEM("CERTIFICATE", der), Key: encodePEM("PRIVATE KEY", raw)}, err
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// pki is the folder of the cluster's certificates.
func (c *Cluster) pki(name string) string { return filepath.Join(c.Dir, "pki", name) }

// issue writes NAME.crt and NAME.key of a subject.
func (c *Cluster) issue(by *Authority, file string, s Subject) error {
	pair, err := by.Issue(s)
	if err != nil {
		return err
	}
	c.pairs[file] = pair
	return errors.Join(os.WriteFile(c.pki(file+".crt"), pair.Cert, 0o600), os.WriteFile(c.pki(file+".key"), pair.Key, 0o600))
}

// makePKI makes every certificate of the control plane and the key that signs service-account tokens.
func (c *Cluster) makePKI() error {
	if err := os.MkdirAll(c.pki(""), 0o750); err != nil {
		return err
	}
	var err error
	if c.CA, err = NewAuthority("kubernetes"); err != nil {
		return err
	}
	front, err := NewAuthority("front-proxy-ca")
	if err != nil {
		return err
	}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(accounts.Public())
	if err != nil {
		return err
	}
	private, err := encodePair(nil, accounts)
	if err != nil {
		return err
	}
	err = errors.Join(
		os.WriteFile(c.pki("ca.crt"), c.CA.PEM, 0o600),
		os.WriteFile(c.pki("front-proxy-ca.crt"), front.PEM, 0o600),
		os.WriteFile(c.pki("sa.pub"), encodePEM("PUBLIC KEY", public), 0o600),
		os.WriteFile(c.pki("sa.key"), private.Key, 0o600),
		c.issue(front, "front-proxy-client", Subject{Name: "front-proxy-client"}),
	)
	caKey, keyErr := encodePair(nil, c.CA.key)
	err = errors.Join(err, keyErr, os.WriteFile(c.pki("ca.key"), caKey.Key, 0o600))
	for file, s := range map[string]Subject{
		"apiserver": {Name: "kube-apiserver", Names: []string{
			"localhost", "127.0.0.1", NodeIP, apiIP,
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + Domain,
		}},
		"admin":              {Name: "admin", Groups: []string{"system:masters"}},
		"controller-manager": {Name: "system:kube-controller-manager"},
		"scheduler":          {Name: "system:kube-scheduler"},
		"proxy":              {Name: "system:kube-proxy"},
		"kubelet-client":     {Name: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
		"kubelet":            {Name: "system:node:" + NodeName, Groups: []string{"system:nodes"}, Names: []string{NodeName, NodeIP}},
		// Of the API servers that the aggregator calls by the address of the node.
		"aggregated": {Name: "aggregated", Names: []string{"localhost", "127.0.0.1", NodeIP}},
	} {
		err = errors.Join(err, c.issue(c.CA, file, s))
	}
	for _, name := range []string{"admin", "controller-manager", "scheduler", "proxy", "kubelet"} {
		err = errors.Join(err, c.writeKubeconfig(name))
	}
	return err
}
