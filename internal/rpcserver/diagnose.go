package rpcserver

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// What Diagnose finds of a server that is there and is spoken to in the wrong way.
const (
	SpeaksTLS   = "the server speaks TLS, and was spoken to in plaintext"
	SpeaksPlain = "the server does not speak TLS, and was spoken to in TLS"
)

// diagnosePatience bounds each step of a diagnosis.
const diagnosePatience = 2 * time.Second

// preface is how HTTP/2 opens a connection, with an empty frame of settings; a server answers with a frame of its own.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// Diagnose tells in words why calls to a server fail on the way, by talking to it once more: grpc's own errors depend on who
// closed the connection first. It is empty where nothing is found, or the target is no host:port.
func Diagnose(ctx context.Context, target string, t ClientTLS) string {
	address := strings.TrimPrefix(target, "dns:")
	address = address[strings.LastIndexByte(address, '/')+1:]
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	conn, err := connect(ctx, address)
	if err != nil {
		return unreached(err)
	}
	defer func() { _ = conn.Close() }()
	if t == (ClientTLS{}) {
		return plainly(ctx, conn, address)
	}
	files, err := reload(slog.New(slog.DiscardHandler), t.config, t.CAFile, t.CertFile, t.KeyFile)
	if err != nil {
		return "the certificates of this side cannot be read any more"
	}
	config := files.config
	config.ServerName, config.NextProtos = cmp.Or(config.ServerName, host), []string{"h2"}
	secure := tls.Client(conn, config)
	if err = secure.HandshakeContext(ctx); err == nil {
		_, err = greet(secure) // where a server of TLS 1.3 refuses the client's certificate
	}
	return refusal(err)
}

func connect(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: diagnosePatience}).DialContext(ctx, "tcp", address)
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(diagnosePatience))
	}
	return conn, err
}

// unreached is why there is no connection.
func unreached(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("no host %s is known", dns.Name)
	case errors.As(err, &dns):
		return fmt.Sprintf("the name of the host %s cannot be looked up", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "nothing answers there"
	}
	var system *os.SyscallError
	if errors.As(err, &system) {
		return system.Err.Error()
	}
	return ""
}

// greet opens HTTP/2 and gives the first bytes of the answer.
func greet(conn net.Conn) (answer []byte, err error) {
	if _, err := conn.Write([]byte(preface)); err != nil {
		return nil, err
	}
	answer = make([]byte, 9)
	n, err := conn.Read(answer)
	return answer[:n], err
}

// plainly is what is wrong with a server that is spoken to in plaintext.
func plainly(ctx context.Context, conn net.Conn, address string) string {
	answer, err := greet(conn)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "something listens there and does not answer"
	case err == nil && strings.HasPrefix(string(answer), "HTTP/"):
		return "the server speaks HTTP/1 and no gRPC"
	case err == nil && len(answer) > 3 && answer[3] == preface[len(preface)-6]: // settings
		return ""
	}
	again, err := connect(ctx, address)
	if err != nil {
		return unreached(err)
	}
	defer func() { _ = again.Close() }()
	err = tls.Client(again, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).HandshakeContext(ctx) //nolint:gosec // nothing is told to it
	if remote := (*net.OpError)(nil); err == nil || errors.As(err, &remote) && remote.Op == "remote error" {
		return SpeaksTLS
	}
	return "the server there does not speak gRPC"
}

// refusal is what is wrong with a handshake, on either side.
func refusal(err error) string {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		wrong   x509.CertificateInvalidError
		header  tls.RecordHeaderError
		remote  *net.OpError
	)
	switch {
	case err == nil:
		return ""
	case errors.As(err, &header):
		return SpeaksPlain
	case errors.As(err, &unknown):
		return "its certificate is from an authority that is not known here"
	case errors.As(err, &name):
		return "its certificate is for another name: " + strings.TrimPrefix(name.Error(), "x509: ")
	case errors.As(err, &wrong) && wrong.Reason == x509.Expired:
		return "its certificate " + cmp.Or(invalid(wrong.Cert, time.Now()), "has expired or is not valid yet")
	case errors.As(err, &wrong):
		return "its certificate is not valid: " + strings.TrimPrefix(wrong.Error(), "x509: ")
	case errors.As(err, &remote) && remote.Op == "remote error":
		switch text := remote.Err.Error(); {
		case strings.Contains(text, "certificate required"):
			return "it wants a certificate of the client, from an authority that it knows"
		case strings.Contains(text, "expired certificate"):
			return "it refuses the certificate of the client, which has expired"
		case strings.Contains(text, "certificate"):
			return "it refuses the certificate of the client"
		default:
			return "it refuses TLS as spoken here: " + strings.TrimPrefix(text, "tls: ")
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "something listens there and does not answer"
	}
	return "the handshake of TLS fails"
}
