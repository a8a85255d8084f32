package modeldir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A link of a snapshot that leads out of its repository is refused, by what it is and without where it leads; one to blobs is followed.
func TestSnapshotsStayInside(t *testing.T) {
	for file, within := range map[string]bool{"model_index.json": false, "unet/config.json": false, "unet": false, "vae/config.json": true} {
		repository := filepath.Join(t.TempDir(), "models--some--net")
		path, to := filepath.Join(repository, "snapshots", "1"), filepath.Join(t.TempDir(), "elsewhere")
		if within {
			to = filepath.Join(repository, "blobs", "1")
		}
		link := filepath.Join(path, file)
		if err := errors.Join(os.MkdirAll(filepath.Join(repository, "blobs"), 0o700), os.MkdirAll(filepath.Dir(path), 0o700),
			os.CopyFS(path, os.DirFS(filepath.Join(formats, "micro-sd15"))), os.Rename(link, to), os.Symlink(to, link)); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path, ClassesStableDiffusion()...)
		var e *Error
		if refused := errors.As(err, &e) && strings.Contains(e.Got, "leads out") && !strings.Contains(err.Error(), to); refused == within || within && err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
