package rpcserver

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// volume is a folder of files that are replaced all at once, as Kubernetes mounts a Secret: each is a link into ..data, which is
// a link to the folder of the moment.
type volume struct {
	dir   string
	turns int
}

// put replaces the files by copies of others.
func (v *volume) put(t *testing.T, contents map[string][]string) {
	t.Helper()
	v.turns++
	turn := fmt.Sprintf("..turn%d", v.turns)
	if err := os.Mkdir(filepath.Join(v.dir, turn), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, sources := range contents {
		var data []byte
		for _, source := range sources {
			part, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			data = append(data, part...)
		}
		if err := os.WriteFile(filepath.Join(v.dir, turn, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(v.dir, name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	next := filepath.Join(v.dir, "..next")
	if err := os.Symlink(turn, next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(v.dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

func (v *volume) path(name string) string { return filepath.Join(v.dir, name) }

func textLog(b *buffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// TestRotation replaces the authority of a server and its clients in the three steps that operators take, under calls over new
// connections, none of which fails. In the end whoever shows the old authority's certificate is refused.
func TestRotation(t *testing.T) {
	before, after := newAuthority(t), newAuthority(t)
	pair := func(a *authority, name string, usage x509.ExtKeyUsage) (cert, key []string) {
		c, k := a.issue(t, name, usage)
		return []string{c}, []string{k}
	}
	secrets := func(authorities []*authority, issuer *authority) (server, client map[string][]string) {
		var ca []string
		for _, a := range authorities {
			ca = append(ca, a.file)
		}
		cert, key := pair(issuer, "server", x509.ExtKeyUsageServerAuth)
		server = map[string][]string{"ca.crt": ca, "tls.crt": cert, "tls.key": key}
		cert, key = pair(issuer, "client", x509.ExtKeyUsageClientAuth)
		return server, map[string][]string{"ca.crt": ca, "tls.crt": cert, "tls.key": key}
	}
	theirs, ours := &volume{dir: t.TempDir()}, &volume{dir: t.TempDir()}
	server, client := secrets([]*authority{before}, before)
	theirs.put(t, server)
	ours.put(t, client)

	var serverLog, clientLog buffer
	r := serve(t, Options{
		Logger: textLog(&serverLog), TLS: TLS{CertFile: theirs.path("tls.crt"), KeyFile: theirs.path("tls.key"), ClientCAFile: theirs.path("ca.crt")},
	}, func(context.Context) error { return nil })
	creds, err := DialCredentials(ClientTLS{CAFile: ours.path("ca.crt"), CertFile: ours.path("tls.crt"), KeyFile: ours.path("tls.key")}, textLog(&clientLog))
	if err != nil {
		t.Fatal(err)
	}
	standing := dial(t, r.addr, grpc.WithTransportCredentials(creds))
	call := func() {
		t.Helper()
		fresh, err := grpc.NewClient(r.addr, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		for name, conn := range map[string]*grpc.ClientConn{"a new connection": fresh, "a connection that stands": standing} {
			if err := callUnary(t.Context(), conn); err != nil {
				t.Fatalf("a call over %s in turn %d: %v", name, theirs.turns, err)
			}
		}
	}
	call()
	old := ours.path("old")
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	kept := &volume{dir: old}
	kept.put(t, client)
	for _, step := range []struct {
		authorities []*authority
		issuer      *authority
	}{{[]*authority{before, after}, before}, {[]*authority{before, after}, after}, {[]*authority{after}, after}} {
		server, client := secrets(step.authorities, step.issuer)
		theirs.put(t, server)
		ours.put(t, client)
		anew := func(log *buffer) bool { return strings.Count(log.String(), "read anew") >= theirs.turns-1 }
		for soon := time.Now().Add(time.Minute); !anew(&serverLog) || !anew(&clientLog); call() {
			if time.Now().After(soon) {
				t.Fatal("the files are not read anew")
			}
		}
	}
	call()
	trusting := ClientTLS{CAFile: after.file, CertFile: kept.path("tls.crt"), KeyFile: kept.path("tls.key")}
	if got := Diagnose(t.Context(), r.addr, trusting); !strings.Contains(got, "refuses the certificate of the client") {
		t.Errorf("who shows a certificate of the old authority: %q", got)
	}
	if got := Diagnose(t.Context(), r.addr, ClientTLS{CAFile: before.file}); !strings.Contains(got, "not known") {
		t.Errorf("who trusts the old authority alone: %q", got)
	}
	for name, log := range map[string]*buffer{"server": &serverLog, "client": &clientLog} {
		if text := log.String(); strings.Contains(text, "cannot be used") || strings.Count(text, "read anew") != 3 {
			t.Errorf("the %s's log:\n%s", name, text)
		}
	}
}

// moment is a clock that stands.
type moment struct{ time.Time }

func (m *moment) now() time.Time { return m.Time }

// TestBrokenFiles: files that cannot be used leave the credentials as they were, and are told once; so are good ones that follow.
func TestBrokenFiles(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue(t, "first", x509.ExtKeyUsageServerAuth)
	nextCert, nextKey := a.issue(t, "second", x509.ExtKeyUsageServerAuth)
	v := &volume{dir: t.TempDir()}
	v.put(t, map[string][]string{"tls.crt": {cert}, "tls.key": {key}})
	var log buffer
	r, err := TLS{CertFile: v.path("tls.crt"), KeyFile: v.path("tls.key")}.credentials(textLog(&log))
	if err != nil {
		t.Fatal(err)
	}
	clock := &moment{time.Now()}
	r.now = clock.now
	look := func() string {
		t.Helper()
		clock.Time = clock.Add(lookInterval)
		_, own := r.current()
		return own.Subject.CommonName
	}
	told := func(words string) int { return strings.Count(log.String(), words) }
	for _, c := range []struct {
		name     string
		contents map[string][]string
		says     string
	}{
		{"a key of another", map[string][]string{"tls.crt": {nextCert}, "tls.key": {key}}, "private key does not match"},
		{"an empty certificate", map[string][]string{"tls.crt": {}, "tls.key": {key}}, "failed to find any PEM data"},
		{"no certificate", map[string][]string{"tls.key": {key}}, "no such file"},
	} {
		n := told("cannot be used")
		v.put(t, c.contents)
		for range 3 {
			if got := look(); got != "first" {
				t.Errorf("%s: the certificate is %q", c.name, got)
			}
		}
		if told("cannot be used") != n+1 || told(c.says) == 0 {
			t.Errorf("%s: told %d times:\n%s", c.name, told("cannot be used")-n, log.String())
		}
	}
	v.put(t, map[string][]string{"tls.crt": {nextCert}, "tls.key": {nextKey}})
	clock.Time = clock.Add(lookInterval - 1)
	if _, own := r.current(); own.Subject.CommonName != "first" {
		t.Error("the files are looked at more often than every second")
	}
	for range 3 {
		if got := look(); got != "second" {
			t.Errorf("behind good files the certificate is %q", got)
		}
	}
	if n := told("read anew"); n != 1 {
		t.Errorf("good files are told %d times", n)
	}
}

// TestOwnValidity: a certificate of our own that ends soon, has ended or has not begun is told, once each.
func TestOwnValidity(t *testing.T) {
	a := newAuthority(t)
	a.validity = 48 * time.Hour
	cert, key := a.issue(t, "server", x509.ExtKeyUsageServerAuth)
	var log buffer
	o := TLS{CertFile: cert, KeyFile: key}
	r, err := o.credentials(textLog(&log))
	if err != nil {
		t.Fatal(err)
	}
	clock := &moment{r.own.NotAfter}
	r.now = clock.now
	for _, c := range []struct {
		at   time.Duration // behind the end
		says string
	}{{-expiresSoon - time.Second, ""}, {-expiresSoon + time.Second, "expires on"}, {-time.Hour, "expires on"}, {time.Second, "has expired on"}, {time.Hour, "has expired on"}, {-time.Hour * 100, "is not valid before"}} {
		clock.Time = r.own.NotAfter.Add(c.at)
		r.looked = time.Time{}
		r.current()
		if r.told != c.says && !strings.HasPrefix(r.told, c.says+" 20") {
			t.Errorf("%v behind the end: %q, want %q", c.at, r.told, c.says)
		}
	}
	if n := strings.Count(log.String(), "our certificate"); n != 3 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
	a.validity = -time.Minute
	o.CertFile, o.KeyFile = a.issue(t, "expired", x509.ExtKeyUsageServerAuth)
	if _, err := o.credentials(textLog(&log)); err != nil || !strings.Contains(log.String(), "has expired on") {
		t.Errorf("an expired certificate at the start: %v\n%s", err, log.String())
	}
}

// TestExpired: of a certificate that has expired, both sides say whose it is and since when.
func TestExpired(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue(t, "server", x509.ExtKeyUsageServerAuth)
	clientCert, clientKey := a.issue(t, "client", x509.ExtKeyUsageClientAuth)
	a.validity = -time.Minute
	oldCert, oldKey := a.issue(t, "old server", x509.ExtKeyUsageServerAuth)
	oldClientCert, oldClientKey := a.issue(t, "old client", x509.ExtKeyUsageClientAuth)
	for _, c := range []struct {
		name        string
		server      TLS
		client      ClientTLS
		words, logs []string // parts of what the client is told, and of the server's log
	}{
		{
			"server",
			TLS{CertFile: oldCert, KeyFile: oldKey, ClientCAFile: a.file},
			ClientTLS{CAFile: a.file, CertFile: clientCert, KeyFile: clientKey},
			[]string{"its certificate has expired on 20", "UTC"},
			[]string{"our certificate has expired on 20", "the client refuses: bad certificate; our certificate has expired on 20"},
		},
		{
			"client",
			TLS{CertFile: cert, KeyFile: key, ClientCAFile: a.file},
			ClientTLS{CAFile: a.file, CertFile: oldClientCert, KeyFile: oldClientKey},
			[]string{"refuses the certificate of the client, which has expired"},
			[]string{"the certificate of the client has expired on 20"},
		},
	} {
		var log buffer
		r := serve(t, Options{Logger: textLog(&log), TLS: c.server}, func(context.Context) error { return nil })
		creds, err := DialCredentials(c.client, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := callUnary(t.Context(), dial(t, r.addr, grpc.WithTransportCredentials(creds))); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: a call: %v", c.name, err)
		}
		said := Diagnose(t.Context(), r.addr, c.client)
		r.stop()
		<-r.done
		for text, parts := range map[string][]string{said: c.words, log.String(): c.logs} {
			if i := slices.IndexFunc(parts, func(part string) bool { return !strings.Contains(text, part) }); i >= 0 {
				t.Errorf("%s: %q does not say %q", c.name, text, parts[i])
			}
		}
	}
}
