package stageengine

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
)

// TestUnreadableLibrary: folders of models that another user cannot read are told as that, and not as folders without models.
func TestUnreadableLibrary(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs the permission to become another user")
	}
	dir, err := os.MkdirTemp("/tmp", "library") // whose parents everybody can read
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	model := filepath.Join(dir, "models", "m")
	if err := os.MkdirAll(model, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(model, modeldir.IndexFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() error {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // which is not given back: another user's
			_ = unix.Setfsuid(65532)
			_, err := OpenLibrary(filepath.Join(dir, "models"))
			done <- err
		}()
		return <-done
	}
	mode := func(path string, to os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, to); err != nil {
			t.Fatal(err)
		}
	}
	mode(dir, 0o755)
	if err := open(); err != nil {
		t.Errorf("what can be read: %v", err)
	}
	mode(model, 0o700)
	for name, path := range map[string]string{"a model": model, "the folder": filepath.Join(dir, "models")} {
		mode(path, 0o700)
		err := open()
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "permission denied; expected files that user") {
			t.Errorf("%s: %v", name, err)
		}
		mode(filepath.Join(dir, "models"), 0o755)
	}
}
