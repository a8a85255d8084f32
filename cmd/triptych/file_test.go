package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestWriteWhole: a file has the mode of any new one, or that of the one it replaces; links lead to what is written, and
// what is no regular file stays what it is.
func TestWriteWhole(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o027))
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		must(probe("output", path(name)))
		must(writeWhole(t.Context(), path(name), []byte(text)))
	}
	check := func(name, text string, mode fs.FileMode) {
		t.Helper()
		info, err := os.Lstat(path(name))
		must(err)
		data, err := os.ReadFile(path(name))
		must(err)
		if info.Mode() != mode || string(data) != text {
			t.Errorf("%s has mode %v and %q, want %v and %q", name, info.Mode(), data, mode, text)
		}
	}
	write("new.png", "1")
	check("new.png", "1", 0o640)

	must(os.WriteFile(path("private.png"), []byte("an older, longer one"), 0o600))
	before, err := os.Open(path("private.png"))
	must(err)
	defer before.Close()
	write("private.png", "2")
	check("private.png", "2", 0o600)
	if old, err := io.ReadAll(before); err != nil || string(old) != "an older, longer one" {
		t.Errorf("who had the file open reads %q, %v", old, err)
	}

	must(os.Mkdir(path("far"), 0o750))
	must(os.WriteFile(path("far/there.png"), nil, 0o604))
	must(os.Chmod(path("far/there.png"), 0o604))
	for link, to := range map[string]string{
		"link.png": "far/there.png", "dangling.png": "missing.png", "chain.png": "far/next.png", "far/next.png": "../far/end.png", "folder": "far", "circle.png": "circle.png",
	} {
		must(os.Symlink(to, path(link)))
	}
	for link, to := range map[string]struct {
		name string
		mode fs.FileMode
	}{
		"link.png": {"far/there.png", 0o604}, "dangling.png": {"missing.png", 0o640}, "chain.png": {"far/end.png", 0o640}, "folder/x.png": {"far/x.png", 0o640},
	} {
		write(link, link)
		check(to.name, link, to.mode)
		if info, err := os.Lstat(path(link)); link != "folder/x.png" && (err != nil || info.Mode()&fs.ModeSymlink == 0) {
			t.Errorf("%s is no link any more: %v, %v", link, info, err)
		}
	}

	must(syscall.Mkfifo(path("fifo.png"), 0o600))
	must(probe("output", path("fifo.png")))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	must(syscall.Mkfifo(path("unread.png"), 0o600))
	if err := writeWhole(ended, path("unread.png"), []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("a FIFO that nobody reads, given up: %v", err)
	}
	read := make(chan string)
	go func() {
		data, _ := os.ReadFile(path("fifo.png"))
		read <- string(data)
	}()
	must(writeWhole(t.Context(), path("fifo.png"), []byte("3")))
	if got := <-read; got != "3" {
		t.Errorf("the FIFO's reader got %q", got)
	}
	must(writeWhole(t.Context(), os.DevNull, []byte("gone")))

	for name, says := range map[string]string{"far": "folder", "circle.png": "links", "no/x.png": "no such"} {
		if err := probe("output", path(name)); !errors.As(err, &usageError{}) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want bad usage that says %q", name, err, says)
		}
	}
	left, err := filepath.Glob(path(".triptych-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

// TestTemporaryFileHasNoName: errors name the file that was asked for, and not the temporary one.
func TestTemporaryFileHasNoName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "a.png")
	for _, err := range []error{probe("output", path), writeWhole(t.Context(), path, nil)} {
		if err == nil || strings.Contains(err.Error(), ".triptych-") || !strings.Contains(err.Error(), path) {
			t.Errorf("got %v", err)
		}
	}
}
