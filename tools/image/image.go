package main

import (
	"bytes"
	"io"
	"maps"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const ourLicence = "Apache-2.0"

// about is what an image says of itself.
type about struct {
	version, revision string
	created           time.Time
}

// labels are those of the OCI image specification.
func (a about) labels() map[string]string {
	all := map[string]string{
		"org.opencontainers.image.title":       "triptych",
		"org.opencontainers.image.description": "Diffusion models served as three stages inside a memory budget",
		"org.opencontainers.image.licenses":    ourLicence,
		"org.opencontainers.image.version":     a.version,
		"org.opencontainers.image.created":     a.created.UTC().Format(time.RFC3339),
		"org.opencontainers.image.revision":    a.revision,
	}
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	return all
}

// layered is what an image is made of, the layer first that changes least.
type layered [][]file

// compose makes the image of a platform.
func compose(layers layered, a about, arch string) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, files := range layers {
		packed, err := pack(files)
		if err != nil {
			return nil, err
		}
		opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed)), nil }
		layer, err := tarball.LayerFromOpener(opener, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			return nil, err
		}
		created := v1.Time{Time: a.created}
		if image, err = mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{Created: created, CreatedBy: "make image"}}); err != nil {
			return nil, err
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: a.created}
	config.Config = v1.Config{
		Entrypoint: []string{"/" + programPath},
		Env:        []string{"PATH=/usr/local/bin", "TRIPTYCH_MODELS=/models"},
		User:       "65532:65532",
		WorkingDir: "/",
		Labels:     a.labels(),
	}
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		return nil, err
	}
	return mutate.Annotations(image, a.labels()).(v1.Image), nil
}

// join makes the index of images, by the platforms that their configs name.
func join(images []v1.Image, a about) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, image := range images {
		config, err := image.ConfigFile()
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: noArtifact{image}, Descriptor: v1.Descriptor{Platform: config.Platform()}})
	}
	return mutate.Annotations(index, a.labels()).(v1.ImageIndex), nil
}

// noArtifact is an image that an index lists as one: the library would give it the type of an artifact, its config's.
type noArtifact struct{ v1.Image }

// ArtifactType is that of none.
func (noArtifact) ArtifactType() (string, error) { return "", nil }

// compressed is how many bytes of an image go over a network.
func compressed(image v1.Image) (n int64, err error) {
	manifest, err := image.Manifest()
	if err != nil {
		return 0, err
	}
	for _, d := range slices.Concat(manifest.Layers, []v1.Descriptor{manifest.Config}) {
		n += d.Size
	}
	return n, nil
}
