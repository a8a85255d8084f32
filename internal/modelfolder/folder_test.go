package modelfolder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/stage"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// add makes a file of some text one of a draft.
func add(t *testing.T, d *Draft, path, text string) {
	t.Helper()
	must(t, os.WriteFile(d.Partial("x"), []byte(text), 0o600))
	s, err := sum(t.Context(), d.Partial("x"), func(int64) {})
	must(t, err)
	must(t, d.Add(d.Partial("x"), path, s, time.Time{}))
}

// publish makes a model of files with their own paths in them.
func publish(t *testing.T, f *Folder, model string, paths ...string) {
	t.Helper()
	d, err := f.Draft(model)
	must(t, err)
	for _, path := range paths {
		add(t, d, path, path)
	}
	must(t, d.Publish(paths))
}

func TestPublish(t *testing.T) {
	f, err := Open(filepath.Join(t.TempDir(), "new", "models"))
	must(t, err)
	publish(t, f, "m", "a", "unet/b")
	if _, ok, err := f.Use("m"); !ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	// printf '%s  %s\n' $(printf a | sha256sum | cut -d' ' -f1) a $(printf unet/b | sha256sum | cut -d' ' -f1) unet/b | sha256sum
	const digest = "sha256:946d09b45e4a8a59793416726cbf969342ca68072a2bcaa7976e641c8a94d650"
	if got := ReadRecord(f.Path("m")).Digest(); got != digest {
		t.Errorf("digest %s", got)
	}

	d, err := f.Draft("m")
	must(t, err)
	old, _ := ReadRecord(f.Path("m")).Of("a")
	if !d.reuse(old) {
		t.Error("an intact file is not reused")
	}
	add(t, d, "c", "new")
	must(t, os.WriteFile(d.Partial("left"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(d.dir, "unknown"), nil, 0o600))
	if err := d.Publish([]string{"a", "c", "missing"}); err == nil || !strings.Contains(err.Error(), "missing is missing") {
		t.Errorf("a model without one of its files: %v", err)
	}
	must(t, d.Publish([]string{"a", "c"}))
	entries, err := os.ReadDir(f.Path("m"))
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{recordName, "a", "c"}; !slices.Equal(names, want) {
		t.Errorf("the model has %q, want %q", names, want)
	}
	if data, err := os.ReadFile(filepath.Join(f.Path("m"), "a")); err != nil || string(data) != "a" {
		t.Errorf("%q, %v", data, err)
	}

	must(t, os.WriteFile(filepath.Join(f.Path("m"), "c"), []byte("longer"), 0o600))
	if _, ok, err := f.Use("m"); ok || err != nil {
		t.Errorf("a file changed: %v, %v", ok, err)
	}
	d, err = f.Draft("m")
	must(t, err)
	if changed, _ := ReadRecord(f.Path("m")).Of("c"); d.reuse(changed) {
		t.Error("a file that changed is reused")
	}
}

// TestDraftGoesOn: a draft has what it had, but for what has changed since.
func TestDraftGoesOn(t *testing.T) {
	f, err := Open(t.TempDir())
	must(t, err)
	d, err := f.Draft("m")
	must(t, err)
	add(t, d, "a", "a")
	add(t, d, "b", "b")
	must(t, os.WriteFile(filepath.Join(d.dir, "b"), []byte("cut"), 0o600))
	d, err = f.Draft("m")
	must(t, err)
	if _, ok := d.record.Of("a"); !ok {
		t.Error("a is lost")
	}
	if _, ok := d.record.Of("b"); ok {
		t.Error("b has changed and counts")
	}
	if begun, err := f.Drafts(); err != nil || !slices.Equal(begun, []string{"m"}) {
		t.Errorf("%q, %v", begun, err)
	}
	if models, err := f.Models(); err != nil || len(models) > 0 {
		t.Errorf("%q, %v", models, err)
	}
}

// TestExchange: both ways put a folder in the place of another.
func TestExchange(t *testing.T) {
	for name, do := range map[string]func(a, b string) error{"exchange": exchange, "by rename": exchangeByRename} {
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		must(t, errors.Join(os.Mkdir(a, 0o700), os.Mkdir(b, 0o700), os.WriteFile(filepath.Join(a, "was-a"), nil, 0o600)))
		must(t, os.Mkdir(a+oldExt, 0o700)) // of one that was killed
		must(t, do(a, b))
		if _, err := os.Stat(filepath.Join(b, "was-a")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(a); err != nil || len(left) > 0 {
			t.Errorf("%s: %v, %v", name, left, err)
		}
	}
}

// TestLock: the next waits, hears of it once and may give up; what was left half removed is gone when it has the lock.
func TestLock(t *testing.T) {
	f, err := Open(t.TempDir())
	must(t, err)
	unlock, err := f.lock(t.Context(), func() { t.Error("nobody has it") })
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := f.lock(ctx, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	left := []string{filepath.Join(f.state(), "m"+goneExt), filepath.Join(f.state(), "m"+draftExt+oldExt)}
	for _, path := range left {
		must(t, os.MkdirAll(filepath.Join(path, "unet"), 0o700))
	}
	got := make(chan error)
	waits := 0
	go func() {
		again, err := f.lock(t.Context(), func() { waits++; unlock() })
		if err == nil {
			again()
		}
		got <- err
	}()
	if err := <-got; err != nil || waits != 1 {
		t.Errorf("%v, waited %d times", err, waits)
	}
	for _, path := range left {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

// TestRemove: a model that was used since it was chosen stays, and so does one that somebody has a lease on.
func TestRemove(t *testing.T) {
	f, err := Open(t.TempDir())
	must(t, err)
	publish(t, f, "m", "a")
	if _, ok, err := f.Use("m"); !ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	if done, err := f.Remove("m", time.Now().Add(-time.Hour)); done || err != nil {
		t.Errorf("used since: %v, %v", done, err)
	}
	var l Leases
	must(t, l.Hold([]string{f.Path("m"), f.Path("none"), t.TempDir()}))
	if done, err := f.Remove("m", f.Used("m")); done || err != nil || !f.InUse("m") {
		t.Errorf("with a lease: %v, %v", done, err)
	}
	must(t, l.Hold(nil))
	if done, err := f.Remove("m", f.Used("m")); !done || err != nil || f.InUse("m") {
		t.Errorf("%v, %v", done, err)
	}
	if _, ok, err := f.Use("m"); ok || err != nil {
		t.Errorf("it is there: %v, %v", ok, err)
	}
}

func TestFull(t *testing.T) {
	err := Full(&os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC})
	if !IsFull(err) || stage.ReasonOf(err) != stage.DiskFull {
		t.Errorf("%v", err)
	}
	if err := Full(os.ErrPermission); IsFull(err) || !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v", err)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"sd15": true, "a b": true, "é": true, "": false, ".hidden": false, "a/b": false, "a,b": false, "a\n": false, "\xff": false, strings.Repeat("a", 129): false,
	} {
		if ValidName(name) != want {
			t.Errorf("name %q: %v", name, !want)
		}
	}
	for path, want := range map[string]bool{
		"a": true, "a/b.c": true, ".gitattributes": true, "": false, ".": false, "..": false, "/a": false, "a/../b": false, "./a": false, "a/": false,
		".triptych.json": false, "a/.triptych-x": false, `a\b`: false, "a\x00": false,
	} {
		if ValidPath(path) != want {
			t.Errorf("path %q: %v", path, !want)
		}
	}
}
