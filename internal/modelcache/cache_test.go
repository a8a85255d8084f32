package modelcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	bytes func(name string, done, all int64)
}

func (p *told) Line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, fmt.Sprintf(format, args...))
}

func (p *told) Bytes(name string, done, all int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bytes != nil {
		p.bytes(name, done, all)
	}
}

func (p *told) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// counting makes p count the bytes that are copied.
func (p *told) counting() *int64 {
	var total, last int64
	name := ""
	p.bytes = func(of string, done, _ int64) {
		if of != name {
			name, last = of, 0
		}
		total, last = total+done-last, done
	}
	return &total
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o750))
	must(t, os.WriteFile(path, data, 0o600))
}

// put makes a model with some weights in a folder.
func put(t *testing.T, folder, model string, weights int, fill byte) {
	t.Helper()
	write(t, filepath.Join(folder, model, "model_index.json"), []byte("{}"))
	write(t, filepath.Join(folder, model, "unet", "w.safetensors"), bytes.Repeat([]byte{fill}, weights))
}

func same(t *testing.T, from, into, model string) {
	t.Helper()
	for _, path := range []string{"model_index.json", "unet/w.safetensors"} {
		a, err := os.ReadFile(filepath.Join(from, model, path))
		must(t, err)
		b, err := os.ReadFile(filepath.Join(into, model, path))
		must(t, err)
		if !bytes.Equal(a, b) {
			t.Errorf("%s of %s differs", path, model)
		}
	}
}

func there(into, model string) bool {
	_, err := os.Lstat(filepath.Join(into, model))
	return err == nil
}

// age makes models that were used last so long ago, the first longest.
func age(t *testing.T, into string, models ...string) {
	t.Helper()
	for i, model := range models {
		then := time.Now().Add(-time.Hour + time.Duration(i)*time.Minute)
		must(t, os.Chtimes(filepath.Join(into, ".triptych", model+".lease"), then, then))
	}
}

func TestFill(t *testing.T) {
	from, into, p := t.TempDir(), filepath.Join(t.TempDir(), "hot"), &told{}
	put(t, from, "a", 3<<20, 'a')
	put(t, from, "b", 1000, 'b')
	write(t, filepath.Join(from, "README.md"), nil)
	o := Options{From: from, Into: into, Progress: p}
	copied := p.counting()
	must(t, Run(t.Context(), o))
	same(t, from, into, "a")
	same(t, from, into, "b")
	if want := int64(3<<20 + 1000 + 2*len("{}")); *copied != want {
		t.Errorf("%d bytes were copied, want %d", *copied, want)
	}
	*copied = 0
	must(t, Run(t.Context(), o))
	if *copied != 0 {
		t.Errorf("%d bytes were copied again", *copied)
	}

	// What changed in the slow folder is copied, and nothing else.
	name := filepath.Join(into, "a", "unet", "w.safetensors")
	before, err := os.Stat(name)
	must(t, err)
	write(t, filepath.Join(from, "a", "model_index.json"), []byte(`{"x": 1}`))
	must(t, Run(t.Context(), o))
	same(t, from, into, "a")
	if after, err := os.Stat(name); err != nil || !os.SameFile(before, after) {
		t.Errorf("weights that have not changed were copied: %v", err)
	}

	// A file that went away there goes away here.
	must(t, os.Remove(filepath.Join(from, "b", "unet", "w.safetensors")))
	must(t, Run(t.Context(), o))
	if there(into, "b/unet/w.safetensors") {
		t.Error("a file that is gone in the slow folder is still in the fast one")
	}

	// Damage that sizes and times do not tell is found by reading.
	info, err := os.Stat(name)
	must(t, err)
	write(t, name, bytes.Repeat([]byte{'x'}, 3<<20))
	must(t, os.Chtimes(name, info.ModTime(), info.ModTime()))
	must(t, Run(t.Context(), o))
	o.Verify = true
	must(t, Run(t.Context(), o))
	same(t, from, into, "a")
	if !strings.Contains(p.text(), `a is damaged: ["unet/w.safetensors"]`) {
		t.Errorf("told:\n%s", p.text())
	}
}

// TestBroken: a model that cannot be copied keeps no other one away, unless it is asked for.
func TestBroken(t *testing.T) {
	from, into, p := t.TempDir(), t.TempDir(), &told{}
	put(t, from, "broken", 10, 'a')
	must(t, os.Symlink("nowhere", filepath.Join(from, "broken", "unet", "x.safetensors")))
	o := Options{From: from, Into: into, Progress: p}
	if err := Run(t.Context(), o); err == nil || !strings.HasPrefix(err.Error(), "broken: ") {
		t.Errorf("a broken model alone: %v", err)
	}
	put(t, from, "sound", 10, 'b')
	must(t, Run(t.Context(), o))
	same(t, from, into, "sound")
	if there(into, "broken") || !strings.Contains(p.text(), "the model is left out") {
		t.Errorf("told:\n%s", p.text())
	}
	o.Models = []string{"broken", "sound"}
	if err := Run(t.Context(), o); err == nil || !strings.HasPrefix(err.Error(), "broken: ") {
		t.Errorf("a broken model that is asked for: %v", err)
	}
}

// TestChanges: a model with a record is compared by digest, and one whose files have the one time of all tars by when they came.
func TestChanges(t *testing.T) {
	from, into, p := t.TempDir(), t.TempDir(), &told{}
	copied := p.counting()
	put(t, from, "tar", 1000, 'a')
	f, err := modelfolder.Open(from)
	must(t, err)
	recorded := func() {
		d, err := f.Draft("recorded")
		must(t, err)
		write(t, d.Partial("x"), []byte("{}"))
		must(t, d.Add(d.Partial("x"), "model_index.json", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", time.Time{}))
		must(t, d.Publish([]string{"model_index.json"}))
	}
	recorded()
	weights := filepath.Join(from, "tar", "unet", "w.safetensors")
	epoch := time.Unix(0, 0)
	must(t, os.Chtimes(weights, epoch, epoch))
	o := Options{From: from, Into: into, Progress: p}
	must(t, Run(t.Context(), o))

	*copied = 0
	recorded() // again, with other times
	must(t, Run(t.Context(), o))
	if *copied != 0 {
		t.Errorf("%d bytes were copied of what has the same digest", *copied)
	}
	must(t, os.Remove(weights))
	write(t, weights, bytes.Repeat([]byte{'b'}, 1000))
	must(t, os.Chtimes(weights, epoch, epoch))
	must(t, Run(t.Context(), o))
	same(t, from, into, "tar")
}

// TestOnce: however many ask at once, one copies.
func TestOnce(t *testing.T) {
	from, into, p := t.TempDir(), t.TempDir(), &told{}
	put(t, from, "a", 8<<20, 'a')
	filled := 0
	p.bytes = func(_ string, done, all int64) {
		if done == all {
			filled++
		}
	}
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if err := Run(t.Context(), Options{From: from, Into: into, Progress: p}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if filled != 1 {
		t.Errorf("filled %d times", filled)
	}
	same(t, from, into, "a")
}

// TestInterrupted: what was copied whole is not copied again, and half of a model is never there.
func TestInterrupted(t *testing.T) {
	from, into := t.TempDir(), t.TempDir()
	put(t, from, "a", 8<<20, 'a')
	write(t, filepath.Join(from, "a", "b.safetensors"), make([]byte, 2<<20))
	ctx, cancel := context.WithCancel(t.Context())
	p := &told{bytes: func(_ string, done, _ int64) {
		if done > 4<<20 {
			cancel()
		}
	}}
	if err := Run(ctx, Options{From: from, Into: into, Progress: p}); !errors.Is(err, context.Canceled) || there(into, "a") {
		t.Fatalf("%v, and the model is there: %v", err, there(into, "a"))
	}
	p = &told{}
	first := int64(-1)
	p.bytes = func(_ string, done, _ int64) {
		if first < 0 {
			first = done
		}
	}
	must(t, Run(t.Context(), Options{From: from, Into: into, Progress: p}))
	if first <= 2<<20 {
		t.Errorf("went on at %d bytes, want behind the files of 2 MiB that were complete", first)
	}
	same(t, from, into, "a")
	if left, _ := filepath.Glob(filepath.Join(into, ".triptych", "*.draft*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestLimit: the model that was not used for longest goes; one that is served, asked for lately or part of the run stays.
func TestLimit(t *testing.T) {
	from, into, p := t.TempDir(), t.TempDir(), &told{}
	for _, model := range []string{"a", "b", "c", "d"} {
		put(t, from, model, 1<<20, model[0])
	}
	o := Options{From: from, Into: into, Limit: 3<<20 + 100, Progress: p}
	run := func(models ...string) error {
		o.Models = models
		return Run(t.Context(), o)
	}
	has := func(want ...string) {
		t.Helper()
		f, err := modelfolder.Open(into)
		must(t, err)
		if got, err := f.Models(); err != nil || !slices.Equal(got, want) {
			t.Fatalf("models %q, %v, want %q", got, err, want)
		}
	}
	must(t, run("a", "b", "c"))
	err := run("d")
	if stage.ReasonOf(err) != stage.ModelDoesNotFit || !strings.Contains(err.Error(), "d needs 1048578 bytes, and the limit is 3145828") {
		t.Errorf("all were asked for just now: %v", err)
	}
	has("a", "b", "c")

	age(t, into, "a", "b", "c")
	var leases modelfolder.Leases
	must(t, leases.Hold([]string{filepath.Join(into, "a")}))
	must(t, run("d"))
	has("a", "c", "d") // b, since a is served
	age(t, into, "c", "a", "d")
	must(t, run("b", "c"))
	has("a", "b", "c") // d, since a is served and c is asked for as well
	must(t, leases.Hold(nil))
	age(t, into, "a", "b", "c")
	must(t, run("d"))
	has("b", "c", "d")

	if err := run("a", "b", "c", "d"); stage.ReasonOf(err) != stage.ModelDoesNotFit {
		t.Errorf("more than the limit: %v", err)
	}
	has("b", "c", "d")
}

// TestSource: what can be wrong with the slow folder.
func TestSource(t *testing.T) {
	from, into := t.TempDir(), t.TempDir()
	put(t, from, "a", 100, 'a')
	run := func(from, into string, models ...string) error {
		return Run(t.Context(), Options{From: from, Into: into, Models: models, Progress: &told{}})
	}
	for name, c := range map[string]struct {
		err  error
		says string
	}{
		"no such model":  {run(from, into, "b"), `model = "b" is not accepted, expected one of a`},
		"no such folder": {run(filepath.Join(from, "x"), into), "no such file"},
		"no models":      {run(into, t.TempDir()), "is not a model and has none"},
		"the same":       {run(from, from), "a folder apart"},
		"one in another": {run(from, filepath.Join(from, "hot")), "a folder apart"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%s: %v, want that %s", name, c.err, c.says)
		}
	}

	// Links to blobs are files; a link to what is no file is named.
	blob := filepath.Join(t.TempDir(), "blob")
	write(t, blob, []byte("weights"))
	must(t, os.Symlink(blob, filepath.Join(from, "a", "linked.safetensors")))
	must(t, run(from, into))
	info, err := os.Lstat(filepath.Join(into, "a", "linked.safetensors"))
	if err != nil || !info.Mode().IsRegular() || info.Size() != 7 {
		t.Errorf("a link became %v, %v", info, err)
	}
	must(t, os.Symlink(filepath.Dir(blob), filepath.Join(from, "a", "folder")))
	if err := run(from, into); err == nil || !strings.Contains(err.Error(), `a: "folder" cannot be copied`) {
		t.Errorf("a link to a folder: %v", err)
	}
	must(t, os.Remove(filepath.Join(from, "a", "folder")))

	// A model that has a record of its checksums is checked by it.
	f, err := modelfolder.Open(from)
	must(t, err)
	d, err := f.Draft("checked")
	must(t, err)
	write(t, d.Partial("x"), []byte("{}"))
	must(t, d.Add(d.Partial("x"), "model_index.json", strings.Repeat("0", 64), time.Time{}))
	must(t, d.Publish([]string{"model_index.json"}))
	if err := run(from, into, "checked"); err == nil || !strings.Contains(err.Error(), "model_index.json is damaged") {
		t.Errorf("damaged on the slow folder: %v", err)
	}

	// A folder that somebody made by hand is not replaced.
	by := t.TempDir()
	must(t, os.Mkdir(filepath.Join(by, "a"), 0o700))
	if err := run(from, by, "a"); err == nil || !strings.Contains(err.Error(), "was not put there by triptych") {
		t.Errorf("somebody else's model: %v", err)
	}
	if _, err := os.ReadDir(filepath.Join(by, "a")); errors.Is(err, fs.ErrNotExist) {
		t.Error("it is gone")
	}
}
