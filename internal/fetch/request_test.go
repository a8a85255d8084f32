package fetch

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestUnreachable: addresses that nobody answers at are named, and nothing else of the URL.
func TestUnreachable(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	f := s.serve("w", []byte("x"))
	s.Close()
	f.URL = strings.Replace(f.URL, "http://", "http://user:secret@", 1) + "?token=secret"
	p := &told{}
	err := Run(t.Context(), manifest("m", f), options(t.TempDir(), p))
	if err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error()+p.text(), "secret") {
		t.Errorf("%v\n%s", err, p.text())
	}
}

// TestToken: the token goes to the host of the manifest by https, and nowhere else.
func TestToken(t *testing.T) {
	data := []byte("weights")
	var seen []string
	var mu sync.Mutex
	note := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen = append(seen, r.URL.Path+" "+r.Header.Get("Authorization"))
			mu.Unlock()
			next(w, r)
		}
	}
	content := note(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) })
	far, near, open := newSite(t, httptest.NewTLSServer), newSite(t, httptest.NewTLSServer), newSite(t, httptest.NewServer)
	far.scripts["/far"] = []http.HandlerFunc{content}
	near.scripts["/w"] = []http.HandlerFunc{note(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/here", http.StatusFound) })}
	near.scripts["/here"] = []http.HandlerFunc{note(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, far.URL+"/far?signature=secret", http.StatusTemporaryRedirect)
	})}
	near.scripts["/down"] = []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, open.URL+"/w", http.StatusFound) }}
	open.scripts["/w"] = []http.HandlerFunc{content}
	trusting := newTransport().(*http.Transport)
	trusting.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	run := func(where string) error {
		o := options(t.TempDir(), &told{})
		o.Token, o.transport = "sesame", trusting
		return Run(t.Context(), manifest("m", File{Path: "w", URL: where, SHA256: sum(data)}), o)
	}
	if err := run(near.URL + "/w"); err != nil {
		t.Fatal(err)
	}
	if err := run(open.URL + "/w"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"/w Bearer sesame", "/here Bearer sesame", "/far ", "/w "}; !slices.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
	if err := run(near.URL + "/down"); err == nil || !strings.Contains(err.Error(), "from https to http") {
		t.Errorf("a redirect to http: %v", err)
	}
}

func TestPlace(t *testing.T) {
	u, err := url.Parse("https://user:secret@host:1/a/b?secret#secret")
	if err != nil || place(u) != "https://host:1/a/b" {
		t.Errorf("%s, %v", place(u), err)
	}
}
