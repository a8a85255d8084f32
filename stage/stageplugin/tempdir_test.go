package stageplugin

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// TestTempDir: a folder of temporary files that can hold no socket is told at once, by name, and nothing is started.
func TestTempDir(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("l", 100))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(t.TempDir(), "missing"), file, long} {
		t.Setenv("TMPDIR", dir)
		_, err := Launch(t.Context(), Options{Kind: stage.KindEncoder, Command: []string{os.Args[0]}, Logger: slog.New(slog.DiscardHandler)})
		var e *StartError
		if !errors.As(err, &e) || !e.Refused || !strings.HasPrefix(err.Error(), "TMPDIR is ") || !strings.Contains(err.Error(), dir) {
			t.Errorf("TMPDIR=%s: %v", dir, err)
		}
	}
}

// TestRefusal: of a child that says that it cannot run as it was told to, the last line is the error.
func TestRefusal(t *testing.T) {
	for role, refused := range map[string]bool{"hopeless": true, "refuser": false} {
		_, err := Launch(t.Context(), Options{
			Kind: stage.KindEncoder, Command: []string{os.Args[0]}, Env: []string{roleKey + "=" + role}, Logger: slog.New(slog.DiscardHandler),
		})
		var e *StartError
		if !errors.As(err, &e) || e.Refused != refused || (err.Error() == "--threads 10000: too many") != refused {
			t.Errorf("%s: %v", role, err)
		}
	}
}
