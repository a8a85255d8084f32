package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/internal/modelfolder"
	"github.com/triptych-serving/triptych/stage"
)

// told keeps what a run tells.
type told struct {
	mu    sync.Mutex
	lines []string
	bytes func(name string, done int64)
}

func (p *told) Line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, fmt.Sprintf(format, args...))
}

func (p *told) Bytes(name string, done, _ int64) {
	if p.bytes != nil {
		p.bytes(name, done)
	}
}

func (p *told) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// site serves content by path; a script, if there is one, answers the first requests of a path, in order.
type site struct {
	*httptest.Server
	mu      sync.Mutex
	content map[string][]byte
	scripts map[string][]http.HandlerFunc
	asked   []string // path and range of each request
}

func newSite(t *testing.T, start func(http.Handler) *httptest.Server) *site {
	s := &site{content: map[string][]byte{}, scripts: map[string][]http.HandlerFunc{}}
	s.Server = start(s)
	t.Cleanup(s.Close)
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, strings.TrimSpace(r.URL.Path+" "+r.Header.Get("Range")))
	var do http.HandlerFunc
	if script := s.scripts[r.URL.Path]; len(script) > 0 {
		do, s.scripts[r.URL.Path] = script[0], script[1:]
	}
	content, ok := s.content[r.URL.Path]
	s.mu.Unlock()
	switch {
	case do != nil:
		do(w, r)
	case !ok:
		http.NotFound(w, r)
	default:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
}

func (s *site) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func random(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	data := make([]byte, n)
	_, _ = r.Read(data)
	return data
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// serve puts a file of a model on the site and gives its entry of a manifest.
func (s *site) serve(path string, data []byte) File {
	s.content["/"+path] = data
	n := int64(len(data))
	return File{Path: path, URL: s.URL + "/" + path, SHA256: sum(data), Size: &n}
}

func manifest(name string, files ...File) Manifest { return Manifest{[]Model{{name, files}}} }

func options(into string, progress modelfolder.Progress) Options {
	return Options{Into: into, Progress: progress, pause: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}
}

func same(t *testing.T, into, model string, want map[string][]byte) {
	t.Helper()
	got := map[string][]byte{}
	root := filepath.Join(into, model)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == ".triptych.json" {
			return err
		}
		below, _ := filepath.Rel(root, name)
		got[filepath.ToSlash(below)], err = os.ReadFile(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("%s has %d files, want %d", model, len(got), len(want))
	}
	for name, data := range want {
		if !bytes.Equal(got[name], data) {
			t.Errorf("%s/%s has %d bytes, want other %d", model, name, len(got[name]), len(data))
		}
	}
}

// TestRun: models appear whole; what is complete is not asked for again; what a manifest changes is, and nothing else.
func TestRun(t *testing.T) {
	s, into, p := newSite(t, httptest.NewServer), filepath.Join(t.TempDir(), "models"), &told{}
	index, weights, empty := []byte("{}"), random(3<<20), []byte{}
	m := manifest("sd15", s.serve("model_index.json", index), s.serve("unet/w.safetensors", weights), s.serve("empty", empty))
	m.Models[0].Files[1].Size = nil
	if err := Run(t.Context(), m, options(into, p)); err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{"model_index.json": index, "unet/w.safetensors": weights, "empty": empty}
	same(t, into, "sd15", all)
	before := len(s.requests())
	for _, verify := range []bool{false, true} {
		o := options(into, p)
		o.Verify = verify
		if err := Run(t.Context(), m, o); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.requests()[before:]; len(got) > 0 {
		t.Errorf("asked again for %q", got)
	}

	other := random(100)
	m.Models[0].Files = []File{s.serve("model_index.json", other), m.Models[0].Files[1]}
	if err := Run(t.Context(), m, options(into, p)); err != nil {
		t.Fatal(err)
	}
	if got := s.requests()[before:]; !slices.Equal(got, []string{"/model_index.json"}) {
		t.Errorf("asked for %q", got)
	}
	same(t, into, "sd15", map[string][]byte{"model_index.json": other, "unet/w.safetensors": weights})

	// A file that was damaged on the disk without a trace is found by reading.
	name := filepath.Join(into, "sd15", "unet/w.safetensors")
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(weights)
	damaged[7] ^= 1
	if err := errors.Join(os.WriteFile(name, damaged, 0o600), os.Chtimes(name, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	o := options(into, p)
	o.Verify = true
	if err := Run(t.Context(), m, o); err != nil {
		t.Fatal(err)
	}
	same(t, into, "sd15", map[string][]byte{"model_index.json": other, "unet/w.safetensors": weights})
	if !strings.Contains(p.text(), `sd15 is damaged: ["unet/w.safetensors"]`) {
		t.Errorf("told:\n%s", p.text())
	}
	if left, _ := filepath.Glob(filepath.Join(into, ".triptych", "*.draft*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestRefused: what trying again does not change is told at once, and nothing appears.
func TestRefused(t *testing.T) {
	answer := func(status int, body []byte) func(w http.ResponseWriter, _ *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write(body)
		}
	}
	data := random(5000)
	to := func(where string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Location"] = []string{where}
			w.WriteHeader(http.StatusFound)
		}
	}
	for name, c := range map[string]struct {
		answer   http.HandlerFunc
		says     string
		requests int
	}{
		"not there":   {answer(404, nil), "the server answers 404 Not Found", 1},
		"no token":    {answer(401, nil), "401 Unauthorized; a token can be given as $TRIPTYCH_FETCH_TOKEN", 1},
		"wrong bytes": {answer(200, random(5001)[1:]), "expected " + sum(data), 2},
		"longer": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "6000")
			answer(200, random(6000))(w, r)
		}, "the server has 6000 bytes, the manifest says 5000", 1},
		"longer, chunked": {func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = w.Write(random(9000))
		}, "the server sends more than 5000 bytes", 1},
		"always broken": {answer(500, nil), "failed 8 times, last since the server answers 500", 8},
		"always empty":  {func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() }, "failed 8 times, last since the server ended after 0 of 5000 bytes", 8},
		"circle":        {to("/w"), "redirects more than 10 times", 11},
		"to a file":     {to("file:///etc/passwd"), "redirects to what is no address", 1},
		"to nonsense":   {to("http://[bad?token=secret"), "redirects to what is no address", 1},
	} {
		s, into, p := newSite(t, httptest.NewServer), t.TempDir(), &told{}
		f := s.serve("w", data)
		s.scripts["/w"] = slices.Repeat([]http.HandlerFunc{c.answer}, 20)
		f.URL = strings.Replace(f.URL, "http://", "http://user:secret@", 1) + "?token=secret#secret"
		err := Run(t.Context(), manifest("m", f), options(into, p))
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "m/w from "+s.URL+"/w: ") {
			t.Errorf("%s: %v, want that %s", name, err, c.says)
		}
		if strings.Contains(fmt.Sprint(err)+p.text(), "secret") {
			t.Errorf("%s: a secret is told: %v\n%s", name, err, p.text())
		}
		if got := len(s.requests()); got != c.requests {
			t.Errorf("%s: %d requests, want %d", name, got, c.requests)
		}
		if _, err := os.Lstat(filepath.Join(into, "m")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the model is there: %v", name, err)
		}
	}
}

// TestParallel: files of a model come together, those with the same content as well, and one that fails ends the others.
func TestParallel(t *testing.T) {
	s, into := newSite(t, httptest.NewServer), t.TempDir()
	data := random(1 << 20)
	want := map[string][]byte{}
	var files []File
	var arrived sync.WaitGroup
	arrived.Add(parallel)
	for i := range 2 * parallel {
		name := fmt.Sprintf("w%d", i)
		f := s.serve(name, data)
		want[name], files = data, append(files, f)
		if i < parallel {
			s.scripts["/"+name] = []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
				arrived.Done()
				arrived.Wait() // for the others
				_, _ = w.Write(data)
			}}
		}
	}
	if err := Run(t.Context(), manifest("m", files...), options(into, &told{})); err != nil {
		t.Fatal(err)
	}
	same(t, into, "m", want)

	s.scripts["/w1"] = []http.HandlerFunc{func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }}
	s.scripts["/w2"] = []http.HandlerFunc{http.NotFound}
	if err := Run(t.Context(), manifest("n", files...), options(into, &told{})); err == nil || !strings.Contains(err.Error(), "n/w2 from") {
		t.Errorf("got %v", err)
	}
}

// TestTogether: of several at once one fetches, and all end well.
func TestTogether(t *testing.T) {
	s, into := newSite(t, httptest.NewServer), t.TempDir()
	data := random(2 << 20)
	m := manifest("m", s.serve("w", data))
	p := &told{}
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if err := Run(t.Context(), m, options(into, p)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := s.requests(); len(got) != 1 {
		t.Errorf("asked %q", got)
	}
	same(t, into, "m", map[string][]byte{"w": data})
}

// TestFoldersOfOthers: a folder that was not fetched is not replaced, one that cannot be written is named.
func TestFoldersOfOthers(t *testing.T) {
	s, into := newSite(t, httptest.NewServer), t.TempDir()
	m := manifest("m", s.serve("w", []byte("x")))
	if err := os.MkdirAll(filepath.Join(into, "m"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), m, options(into, &told{})); err == nil || !strings.Contains(err.Error(), "was not put there by triptych") {
		t.Errorf("somebody else's model: %v", err)
	}
	file := filepath.Join(into, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), m, options(file, &told{})); err == nil || !strings.Contains(err.Error(), "cannot be written") {
		t.Errorf("a file: %v", err)
	}
}

// TestNoRoom: what does not fit is refused before anything is asked for.
func TestNoRoom(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	f := s.serve("w", []byte("x"))
	huge := int64(maxSize)
	m := manifest("m", f)
	for i := range 50 {
		m.Models[0].Files = append(m.Models[0].Files, File{Path: fmt.Sprint(i), URL: f.URL, SHA256: f.SHA256, Size: &huge})
	}
	if err := Run(t.Context(), m, options(t.TempDir(), &told{})); stage.ReasonOf(err) != stage.DiskFull || len(s.requests()) > 0 {
		t.Errorf("%v, asked %q", err, s.requests())
	}
	if err := modelfolder.Full(&fs.PathError{Op: "write", Path: "x", Err: errors.New("else")}); stage.ReasonOf(err) == stage.DiskFull {
		t.Error("every error is a full disk")
	}
}
