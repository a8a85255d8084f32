package stageengine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/stage"
)

// cached puts a copy of a model into a hub's cache as a snapshot, with its files as blobs and links, and weights as those of a variant.
func cached(t *testing.T, repository, snapshot, model, variant string) {
	t.Helper()
	to := filepath.Join(repository, "snapshots", snapshot)
	if err := os.MkdirAll(filepath.Join(repository, "blobs"), 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(model, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range append(files, filepath.Join(model, modeldir.IndexFile)) {
		own, _ := filepath.Rel(model, file)
		if strings.HasPrefix(own, "golden") {
			continue
		}
		data, err := os.ReadFile(file)
		blob := filepath.Join(repository, "blobs", fmt.Sprint(snapshot, i))
		if ext := filepath.Ext(own); variant != "" && ext == ".safetensors" {
			own = strings.TrimSuffix(own, ext) + "." + variant + ext
		}
		link := filepath.Join(to, own)
		target, _ := filepath.Rel(filepath.Dir(link), blob)
		if err = errors.Join(err, os.WriteFile(blob, data, 0o600), os.MkdirAll(filepath.Dir(link), 0o700), os.Symlink(target, link)); err != nil {
			t.Fatal(err)
		}
	}
}

// refer has refs/main name a snapshot.
func refer(t *testing.T, repository, snapshot string) {
	t.Helper()
	refs := filepath.Join(repository, "refs")
	if err := errors.Join(os.MkdirAll(refs, 0o700), os.WriteFile(filepath.Join(refs, "main"), []byte(snapshot), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestHubCache: repositories in the hub's cache are models under their own names, of the snapshot that refs/main names, whichever path
// of them is given, and draw as their files do elsewhere.
func TestHubCache(t *testing.T) {
	const model, old, now = "tiny-sd15", "0123456789abcdef", "fedcba9876543210"
	source := filepath.Join(repo, "testdata/golden", model)
	golden := filepath.Join(source, "golden")
	run := readRuns(t, golden)[0]
	for name, variant := range map[string]string{"plain": "", "fp16": "fp16"} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			repository := filepath.Join(cache, "models--some-org--"+model)
			cached(t, repository, now, source, variant)
			if err := os.MkdirAll(filepath.Join(repository, "snapshots", old), 0o700); err != nil {
				t.Fatal(err)
			}
			refer(t, repository, now+"\n")
			for _, path := range []string{cache, repository, filepath.Join(repository, "snapshots", now)} {
				e, d, v, _ := streamingStages(t, path, nil)
				if names := e.Library.Names(); !slices.Equal(names, []string{model}) {
					t.Fatalf("%s: models %v", path, names)
				}
				latent, img := generate(t, e, d, v, model, run)
				compareRun(t, golden, run, latent, img)
				if told := logged(t, e.Options); strings.Contains(told, "fp16") != (variant != "") {
					t.Errorf("%s: logged %q", path, told)
				}
			}
		})
	}
}

// TestHubSnapshotChanges: a ref that names another snapshot makes another version of the model, without a look at anything else.
func TestHubSnapshotChanges(t *testing.T) {
	const model = "tiny-sd15"
	cache := t.TempDir()
	repository := filepath.Join(cache, "models--"+model)
	for _, snapshot := range []string{"first", "second"} {
		cached(t, repository, snapshot, filepath.Join(repo, "testdata/golden", model), "")
	}
	file := filepath.Join(repository, "snapshots", "second", unetFile)
	zero(t, file, file) // through the link
	refer(t, repository, "first")
	_, d, _ := open(t, cache)
	component := partOf(d, model)
	told := map[string]bool{}
	for _, snapshot := range []string{"first", "second", "first"} {
		refer(t, repository, snapshot)
		d.look()
		if b := d.book(component); b == nil || b.problem != nil || !strings.Contains(b.files[0], filepath.Join("snapshots", snapshot)) {
			t.Fatalf("%s: %+v", snapshot, b)
		}
		if err := d.Load(t.Context(), stage.LoadRequest{Component: component}, nil); err != nil {
			t.Fatal(err)
		}
		told[d.book(component).edition().Identity] = true
		refer(t, repository, map[string]string{"first": "second", "second": "first"}[snapshot])
		d.look()
		if b := d.book(component); b.stale.Load() == nil {
			t.Errorf("%s: its weights are not stale when refs/main names another one", snapshot)
		}
		if _, err := d.Evict(t.Context(), stage.EvictRequest{Component: component}); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 2 {
		t.Errorf("identities %v, want one for each snapshot", told)
	}
}

// TestHubRefs: what refs/main may not say, and repositories that are no models.
func TestHubRefs(t *testing.T) {
	const model = "tiny-sd15"
	cache := t.TempDir()
	source := filepath.Join(repo, "testdata/golden", model)
	repository := filepath.Join(cache, "models--org--"+model)
	cached(t, repository, "here", source, "")
	cached(t, filepath.Join(cache, "models--org--outside"), "x", source, "")
	if err := os.MkdirAll(filepath.Join(cache, "models--org--bert", "snapshots", "s"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"", ".", "..", "../../models--org--outside/snapshots/x", "/", "gone", "here/", `here\..`, strings.Repeat("a", 300), "here\x00"} {
		refer(t, repository, ref)
		_, err := OpenLibrary(repository)
		var of *modeldir.Error
		if !errors.As(err, &of) || of.Path != filepath.Join(repository, "refs", "main") {
			t.Errorf("refs/main %.30q: %v", ref, err)
		}
		if l, err := OpenLibrary(cache); err == nil {
			t.Errorf("refs/main %.30q: models %v", ref, l.Names())
		}
	}
	if err := os.RemoveAll(filepath.Join(repository, "refs")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLibrary(repository); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no refs/main: %v", err)
	}
	refer(t, repository, "here")
	if l, err := OpenLibrary(cache); err != nil || !slices.Equal(l.Names(), []string{model}) {
		t.Errorf("%v, %v", l.Names(), err)
	}
	for path, name := range map[string]string{
		"models--a--b": "b", "models--b": "b", "models--a--b/snapshots/s": "b", "plain": "plain", "models--": "models--", "models--a--b/snapshots/s/unet": "unet",
	} {
		path = filepath.Join(t.TempDir(), path)
		if err := os.MkdirAll(filepath.Join(path, "snapshots"), 0o700); err != nil {
			t.Fatal(err)
		}
		if got := NameOf(path); got != name {
			t.Errorf("%s is called %q, want %q", path, got, name)
		}
	}
}
