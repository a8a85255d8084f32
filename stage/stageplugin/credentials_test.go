package stageplugin

import (
	"bufio"
	"crypto/tls"
	"net"
	"strings"
	"testing"
)

// shake makes the connection that a parent with one set of credentials and a child with another would have.
func shake(t *testing.T, parent, child *tls.Config) (parentErr, childErr error) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	done := make(chan error)
	go func() {
		conn, err := lis.Accept()
		if err == nil {
			_, err = tls.Server(conn, child).Read(make([]byte, 1)) // behind the handshake
			_ = conn.Close()
		}
		done <- err
	}()
	conn, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, parentErr = tls.Client(conn, parent).Write([]byte{1})
	if parentErr != nil {
		_ = conn.Close() // so that the child's side ends too
	}
	childErr = <-done
	_ = conn.Close()
	return parentErr, childErr
}

func TestCredentials(t *testing.T) {
	own, err := newCredentials()
	if err != nil {
		t.Fatal(err)
	}
	told, err := readCredentials(bufio.NewReader(strings.NewReader(own.line() + "more")))
	if err != nil {
		t.Fatal(err)
	}
	if parentErr, childErr := shake(t, own.config(), told.config()); parentErr != nil || childErr != nil {
		t.Errorf("the two of a pair: %v, %v", parentErr, childErr)
	}

	other, err := newCredentials()
	if err != nil {
		t.Fatal(err)
	}
	if parentErr, _ := shake(t, own.config(), other.config()); parentErr == nil {
		t.Error("a stranger passes for the child")
	}
	stranger := other.config()
	stranger.RootCAs = own.config().RootCAs // believes the child, and shows its own certificate
	if _, childErr := shake(t, stranger, told.config()); childErr == nil {
		t.Error("a stranger passes for the parent")
	}
	nobody := own.config()
	nobody.Certificates = nil
	if _, childErr := shake(t, nobody, told.config()); childErr == nil {
		t.Error("a parent passes without a certificate")
	}

	for _, line := range []string{"", "\n", "no newline", "x y\n", own.line()[:40] + "\n", strings.Replace(own.line(), " ", "", 1)} {
		if _, err := readCredentials(bufio.NewReader(strings.NewReader(line))); err == nil {
			t.Errorf("%q is taken for credentials", line)
		}
	}
}
