//go:build linux

package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A certificate is valid for its names, until its time, for whoever knows the authority.
func TestIssue(t *testing.T) {
	authority, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(Subject{Name: "denoiser", Groups: []string{"stages"}, Names: []string{"*.triptych-denoiser.ns.svc", NodeIP}})
	if err != nil {
		t.Fatal(err)
	}
	both, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.PEM)
	for name, valid := range map[string]bool{"a.triptych-denoiser.ns.svc": true, NodeIP: true, "triptych-encoder.ns.svc": false} {
		_, err := both.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name})
		if (err == nil) != valid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := both.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: time.Now().AddDate(0, 0, 2)}); err == nil {
		t.Error("it is valid in two days")
	}
	if _, err := both.Leaf.Verify(x509.VerifyOptions{Roots: x509.NewCertPool()}); err == nil {
		t.Error("it is valid for whoever does not know the authority")
	}
}

// An image has its files below their folders, and is the same each time.
func TestWriteImage(t *testing.T) {
	write := func(name string) []byte {
		path := filepath.Join(t.TempDir(), name)
		if err := WriteImage(path, "docker.io/triptych/pause:test", map[string][]byte{"bin/pause": []byte("program"), "a": []byte("b")}, "/bin/pause"); err != nil {
			t.Fatal(err)
		}
		image, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return image
	}
	image := write("1.tar")
	if !bytes.Equal(image, write("2.tar")) {
		t.Error("it differs from one time to the next")
	}
	files := untar(t, image)
	if !strings.Contains(string(files["manifest.json"]), "docker.io/triptych/pause:test") {
		t.Errorf("the manifest is %s", files["manifest.json"])
	}
	layer := untar(t, files["layer.tar"])
	if string(layer["bin/pause"]) != "program" || layer["bin/"] == nil {
		t.Errorf("the layer is %v", layer)
	}
}

// untar reads a tarball; a folder is an empty file.
func untar(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// A sandbox is known by its process as long as that is the same one.
func TestRunning(t *testing.T) {
	dir := t.TempDir()
	if _, running := Running(dir); running {
		t.Error("one is running where none was started")
	}
	if err := writeState(dir, os.Getpid()); err != nil {
		t.Skip(err) // no /proc
	}
	if s, running := Running(dir); !running || s.PID != os.Getpid() {
		t.Errorf("it is %v, running: %v", s, running)
	}
	other := []byte(strings.Replace(read(t, statePath(dir)), `"start":"`, `"start":"1`, 1))
	if err := os.WriteFile(statePath(dir), other, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, running := Running(dir); running {
		t.Error("a process with the same id that was started at another time counts as the sandbox's")
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Waiting ends with success, with the last reason when time is over, or with the caller's end.
func TestWait(t *testing.T) {
	calls := 0
	err := Wait(t.Context(), time.Minute, func(context.Context) error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil || calls != 3 {
		t.Errorf("after %d calls: %v", calls, err)
	}
	err = Wait(t.Context(), time.Millisecond, func(context.Context) error { return errors.New("never") })
	if err == nil || !strings.Contains(err.Error(), "never") {
		t.Errorf("when time is over: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Wait(ctx, time.Minute, func(context.Context) error { return errors.New("never") }); !errors.Is(err, context.Canceled) {
		t.Errorf("when the caller ends: %v", err)
	}
}

// A log's end begins with a whole line.
func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("first line\nsecond line\nthird\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tail(path, 20); got != "second line\nthird\n" {
		t.Errorf("the end is %q", got)
	}
	if got := tail(path, 1000); !strings.HasPrefix(got, "first") {
		t.Errorf("the whole is %q", got)
	}
}
