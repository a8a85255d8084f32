package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestServersThatFail: what a server gets wrong for a while is got over, and asked for from where it stopped.
func TestServersThatFail(t *testing.T) {
	data := random(2 << 20)
	const half = 1 << 20
	part := func(status int, header map[string]string, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(status)
			_, _ = w.Write(body)
		}
	}
	cut := part(200, map[string]string{"Content-Length": fmt.Sprint(len(data))}, data[:half]) // the connection is closed
	for name, c := range map[string]struct {
		script   []http.HandlerFunc
		unsized  bool
		requests []string
	}{
		"ends early":        {[]http.HandlerFunc{cut}, false, []string{"/w", "/w bytes=1048576-"}},
		"ends early, twice": {[]http.HandlerFunc{cut, part(206, map[string]string{"Content-Range": "bytes 1048576-2097151/2097152"}, data[half:half+9])}, false, []string{"/w", "/w bytes=1048576-", "/w bytes=1048585-"}},
		"ends early and says so nowhere": {
			[]http.HandlerFunc{part(200, nil, data[:half])},
			false,
			[]string{"/w", "/w bytes=1048576-"},
		},
		"knows no ranges":         {[]http.HandlerFunc{cut, part(200, nil, data)}, false, []string{"/w", "/w bytes=1048576-"}},
		"sends another range":     {[]http.HandlerFunc{cut, part(206, map[string]string{"Content-Range": "bytes 5-2097151/2097152"}, data[5:])}, false, []string{"/w", "/w bytes=1048576-", "/w"}},
		"sends nonsense of range": {[]http.HandlerFunc{cut, part(206, map[string]string{"Content-Range": "bytes x"}, data[half:])}, false, []string{"/w", "/w bytes=1048576-", "/w"}},
		"has become shorter":      {[]http.HandlerFunc{cut, part(416, nil, nil)}, false, []string{"/w", "/w bytes=1048576-", "/w"}},
		"is overloaded":           {[]http.HandlerFunc{part(503, map[string]string{"Retry-After": "7"}, nil), part(429, nil, nil)}, false, []string{"/w", "/w", "/w"}},
		"wrong bytes, once":       {[]http.HandlerFunc{part(200, nil, random(2<<20 + 1)[1:])}, false, []string{"/w", "/w"}},
		"ends early, unsized":     {[]http.HandlerFunc{cut}, true, []string{"/w", "/w bytes=1048576-"}},
	} {
		s, into, p := newSite(t, httptest.NewServer), t.TempDir(), &told{}
		f := s.serve("w", data)
		if c.unsized {
			f.Size = nil
		}
		s.scripts["/w"] = c.script
		if err := Run(t.Context(), manifest("m", f), options(into, p)); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		same(t, into, "m", map[string][]byte{"w": data})
		if got := s.requests(); !slices.Equal(got, c.requests) {
			t.Errorf("%s: asked %q, want %q", name, got, c.requests)
		}
	}
}

// TestStalled: a server that sends nothing any more is left, and asked again.
func TestStalled(t *testing.T) {
	s, into, p := newSite(t, httptest.NewServer), t.TempDir(), &told{}
	data := random(2 << 20)
	f := s.serve("w", data)
	s.scripts["/w"] = []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(data[:1<<20])
		w.(http.Flusher).Flush()
		<-r.Context().Done() // the caller has gone
	}}
	o := options(into, p)
	o.stall = 100 * time.Millisecond
	if err := Run(t.Context(), manifest("m", f), o); err != nil {
		t.Fatal(err)
	}
	same(t, into, "m", map[string][]byte{"w": data})
	if !strings.Contains(p.text(), "nothing came for 100ms") {
		t.Errorf("told:\n%s", p.text())
	}
}

// TestInterrupted: a run that is cancelled leaves what it has, and the next goes on there.
func TestInterrupted(t *testing.T) {
	s, into := newSite(t, httptest.NewServer), t.TempDir()
	first, second := random(1<<20), random(6<<20)
	m := manifest("m", s.serve("a", first), s.serve("b", second))
	ctx, cancel := context.WithCancel(t.Context())
	s.scripts["/b"] = []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(second)))
		_, _ = w.Write(second[:3<<20])
		w.(http.Flusher).Flush()
		<-r.Context().Done() // the caller has gone
	}}
	var got sync.Map
	p := &told{bytes: func(name string, done int64) {
		got.Store(name, done)
		a, _ := got.Load("m/a")
		if b, _ := got.Load("m/b"); a == int64(1<<20) && b != nil && b.(int64) > 2<<20 {
			cancel()
		}
	}}
	if err := Run(ctx, m, options(into, p)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(into, "m")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half of a model is there: %v", err)
	}
	before := len(s.requests())
	if err := Run(t.Context(), m, options(into, &told{})); err != nil {
		t.Fatal(err)
	}
	asked := s.requests()[before:]
	var from int
	if len(asked) != 1 {
		t.Fatalf("asked %q", asked)
	}
	if _, err := fmt.Sscanf(asked[0], "/b bytes=%d-", &from); err != nil || from <= 2<<20 {
		t.Errorf("asked %q, want what is behind 2 MiB of b", asked)
	}
	same(t, into, "m", map[string][]byte{"a": first, "b": second})
}
