package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/internal/modelfolder"
)

// TestHoldLeases: models that a service serves are not removed, whether it was given their folder or them, and are once it ends.
func TestHoldLeases(t *testing.T) {
	from, into := "../../testdata/golden/tiny-sd15", t.TempDir()
	if _, err := ran(t, nil, "cache", "--from", from, "--into", into); err != nil {
		t.Fatal(err)
	}
	if _, err := ran(t, nil, "cache", "--from", "../../testdata/golden/tiny-v", "--into", into); err != nil {
		t.Fatal(err)
	}
	folder, err := modelfolder.Open(into)
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(into, ".triptych", "tiny-sd15.lease"), long, long); err != nil {
		t.Fatal(err)
	}
	for _, dirs := range [][]string{{into}, {filepath.Join(into, "tiny-sd15")}} {
		release := holdLeases(dirs, slog.New(slog.DiscardHandler))
		if !folder.InUse("tiny-sd15") || folder.InUse("tiny-v") != (dirs[0] == into) {
			t.Errorf("%q: in use are tiny-sd15 %v, tiny-v %v", dirs, folder.InUse("tiny-sd15"), folder.InUse("tiny-v"))
		}
		if done, err := folder.Remove("tiny-sd15", time.Time{}); done || err != nil {
			t.Errorf("%q: a model that is served was removed: %v, %v", dirs, done, err)
		}
		if used := folder.Used("tiny-sd15"); time.Since(used) > time.Minute {
			t.Errorf("%q: last used at %v, and it is served now", dirs, used)
		}
		release()
		if folder.InUse("tiny-sd15") {
			t.Errorf("%q: still in use", dirs)
		}
	}
	if done, err := folder.Remove("tiny-sd15", time.Time{}); !done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	if _, err := os.Stat(filepath.Join(into, "tiny-sd15")); !os.IsNotExist(err) {
		t.Errorf("it is there: %v", err)
	}
	holdLeases([]string{from}, slog.New(slog.DiscardHandler))() // which gives none
}
