package main

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

var made = about{version: "v1.2.3", revision: "abc", created: time.Unix(1700000000, 0)}

// testIndex is an index of two small images.
func testIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	var images []v1.Image
	for _, arch := range []string{"amd64", "arm64"} {
		image, err := compose(layered{
			append(system(), file{"models/starter/model_index.json", 0o644, []byte("{}")}),
			{{programPath, 0o755, []byte("the program for " + arch)}},
		}, made, arch)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, image)
	}
	index, err := join(images, made)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// TestSameDigestTwice: what is composed from the same files has the same digest, and so has the tar.
func TestSameDigestTwice(t *testing.T) {
	var digests [2]v1.Hash
	var archives [2][]byte
	for i := range digests {
		dir := t.TempDir()
		index := testIndex(t)
		var err error
		if digests[i], err = index.Digest(); err != nil {
			t.Fatal(err)
		}
		if err := writeLayout(filepath.Join(dir, "image"), index, "docker.io/library/triptych:v1.2.3", "v1.2.3"); err != nil {
			t.Fatal(err)
		}
		if err := writeArchive(filepath.Join(dir, "image.tar"), filepath.Join(dir, "image")); err != nil {
			t.Fatal(err)
		}
		if archives[i], err = os.ReadFile(filepath.Join(dir, "image.tar")); err != nil {
			t.Fatal(err)
		}
	}
	if digests[0] != digests[1] || !bytes.Equal(archives[0], archives[1]) {
		t.Errorf("digests %v, tars equal: %v", digests, bytes.Equal(archives[0], archives[1]))
	}
}

// TestImage: the layout has both platforms, and each has what the programs of a cluster look for.
func TestImage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "image")
	if err := writeLayout(dir, testIndex(t), "docker.io/library/triptych:v1.2.3", "v1.2.3"); err != nil {
		t.Fatal(err)
	}
	outer, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	top, err := outer.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(top.Manifests) != 1 || top.Manifests[0].Annotations["io.containerd.image.name"] != "docker.io/library/triptych:v1.2.3" {
		t.Fatalf("the layout has %+v", top.Manifests)
	}
	index, err := outer.ImageIndex(top.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	platforms, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var models []v1.Hash
	for i, arch := range []string{"amd64", "arm64"} {
		if d := platforms.Manifests[i]; d.Platform == nil || d.Platform.String() != "linux/"+arch || d.ArtifactType != "" {
			t.Fatalf("manifest %d is %+v", i, d)
		}
		image, err := index.Image(platforms.Manifests[i].Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		c := config.Config
		if c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/usr/local/bin/triptych"}) || !slices.Contains(c.Env, "TRIPTYCH_MODELS=/models") ||
			c.Labels["org.opencontainers.image.version"] != "v1.2.3" || c.Labels["org.opencontainers.image.licenses"] != "Apache-2.0" {
			t.Errorf("%s: %+v", arch, c)
		}
		layers, err := image.Layers()
		if err != nil || len(layers) != 2 {
			t.Fatalf("%d layers, %v", len(layers), err)
		}
		digest, err := layers[0].Digest()
		if err != nil {
			t.Fatal(err)
		}
		models = append(models, digest)
		got := entries(t, layers)
		for name, mode := range map[string]int64{"tmp/": 0o1777, "models/starter/model_index.json": 0o644, programPath: 0o755, "usr/local/bin/": 0o755, "etc/passwd": 0o644} {
			if h := got[name]; h == nil || h.Mode != mode || h.Uid != 0 || h.ModTime.Unix() != 0 {
				t.Errorf("%s: %s is %+v, want mode %o of root as of 1970", arch, name, h, mode)
			}
		}
	}
	if models[0] != models[1] {
		t.Error("the platforms do not share the model's layer")
	}
}

func entries(t *testing.T, layers []v1.Layer) map[string]*tar.Header {
	t.Helper()
	all := map[string]*tar.Header{}
	for _, layer := range layers {
		content, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		r := tar.NewReader(content)
		for {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			all[h.Name] = h
		}
	}
	return all
}

// TestSBOM: every module is a package with a purl, a replacement in the place of what it replaces, and every id is one.
func TestSBOM(t *testing.T) {
	info := &buildinfo.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Path: "example.org/main"}, Deps: []*debug.Module{
		{Path: "example.org/b_c", Version: "v1.0.0+incompatible"},
		{Path: "example.org/a", Version: "v1.0.0", Replace: &debug.Module{Path: "example.org/a2", Version: "v1.0.1"}},
	}}
	out, err := sbom(info, []byte("program"), "linux/amd64", "v1.2.3", made.created)
	if err != nil {
		t.Fatal(err)
	}
	var doc spdxDocument
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatal(err)
	}
	purls := map[string]string{}
	for _, p := range doc.Packages {
		if !strings.HasPrefix(p.ID, "SPDXRef-") || strings.ContainsAny(p.ID, "_/@") {
			t.Errorf("id %q", p.ID)
		}
		for _, r := range p.Refs {
			purls[p.Name] = r.Locator
		}
	}
	want := map[string]string{
		"example.org/main": "pkg:golang/example.org/main@v1.2.3", "example.org/a2": "pkg:golang/example.org/a2@v1.0.1",
		"example.org/b_c": "pkg:golang/example.org/b_c@v1.0.0%2Bincompatible", "stdlib": "pkg:golang/stdlib@1.26.8",
	}
	if !maps.Equal(purls, want) {
		t.Errorf("purls %v, want %v", purls, want)
	}
	if doc.Version != "SPDX-2.3" || doc.Creation.Created != "2023-11-14T22:13:20Z" || len(doc.Relationships) != len(doc.Packages) {
		t.Errorf("%+v", doc)
	}
}
