// Command image builds Triptych's container image without a container engine: an OCI layout with an index of both platforms, and
// the same as a tar that `ctr images import` takes. The same sources, version and Go give the same digest. It is a module of its own,
// since nothing else of Triptych needs its libraries.
package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const programPath = "usr/local/bin/triptych"

// options are what the image is made from and where it goes.
type options struct {
	root, out, archive string
	name               string
	about              about
}

func main() {
	var (
		o     options
		epoch int64
	)
	flag.StringVar(&o.root, "root", ".", "folder of Triptych's module")
	flag.StringVar(&o.out, "out", "bin/image", "folder of the OCI layout, which is replaced")
	flag.StringVar(&o.archive, "archive", "bin/image.tar", "file of the tar for `ctr images import`")
	flag.StringVar(&o.name, "name", "docker.io/library/triptych", "name of the image, without a tag")
	flag.StringVar(&o.about.version, "version", "devel", "version, and tag of the image")
	flag.StringVar(&o.about.revision, "revision", "", "commit it is made of")
	flag.Int64Var(&epoch, "created", 0, "time it is said to be made at, in seconds since 1970, such as the commit's")
	flag.Parse()
	o.about.created = time.Unix(epoch, 0).UTC()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be stopped
	}
}

// tag is what the distribution specification takes for one.
var tag = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

func run(ctx context.Context, o options) error {
	if !tag.MatchString(o.about.version) {
		return fmt.Errorf("-version %q: expected letters, digits, dots, dashes and underscores, which a tag may have", o.about.version)
	}
	work, err := os.MkdirTemp("", "triptych-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work) //nolint:errcheck // a temporary folder
	model, err := tree(filepath.Join(o.root, "models", "starter"), "models/starter")
	if err != nil {
		return err
	}
	var images []v1.Image
	boms := map[string][]byte{}
	for _, arch := range []string{"amd64", "arm64"} {
		b, err := build(ctx, o.root, work, arch, o.about.version)
		if err != nil {
			return err
		}
		program, bom, err := content(ctx, o, b)
		if err != nil {
			return err
		}
		image, err := compose(layered{append(system(), model...), program}, o.about, arch)
		if err != nil {
			return err
		}
		images, boms[arch] = append(images, image), bom
	}
	return write(o, images, boms)
}

// content is the layer of a binary: itself, what it is made of and the licences of that.
func content(ctx context.Context, o options, b binary) (files []file, bom []byte, err error) {
	data, err := os.ReadFile(b.path)
	if err != nil {
		return nil, nil, err
	}
	info, err := buildinfo.ReadFile(b.path)
	if err != nil {
		return nil, nil, err
	}
	if bom, err = sbom(info, data, "linux/"+b.arch, o.about.version, o.about.created); err != nil {
		return nil, nil, err
	}
	var names []string
	for _, m := range modules(info) {
		names = append(names, m.Path)
	}
	folders, err := sources(ctx, o.root, names)
	if err != nil {
		return nil, nil, err
	}
	if files, err = licences(folders); err != nil {
		return nil, nil, err
	}
	for _, name := range []string{"LICENSE", "NOTICE"} {
		text, err := os.ReadFile(filepath.Join(o.root, name))
		if err != nil {
			return nil, nil, err
		}
		files = append(files, file{licenceFolder + "/" + name, 0o644, text})
	}
	return append(files, file{programPath, 0o755, data}, file{sbomPath, 0o644, bom}), bom, nil
}

const sbomPath = "usr/share/sbom/triptych.spdx.json"

// write writes layout, tar and SBOMs, and prints what came of it.
func write(o options, images []v1.Image, boms map[string][]byte) error {
	index, err := join(images, o.about)
	if err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(o.out), os.MkdirAll(filepath.Dir(o.out), 0o755)); err != nil { //nolint:gosec // build outputs are for everybody
		return err
	}
	if err := writeLayout(o.out, index, o.name+":"+o.about.version, o.about.version); err != nil {
		return err
	}
	if err := writeArchive(o.archive, o.out); err != nil {
		return err
	}
	fmt.Printf("name    %s:%s\ndigest  %s\n", strings.TrimPrefix(o.name, "docker.io/library/"), o.about.version, digest)
	for _, image := range images {
		config, err := image.ConfigFile()
		if err != nil {
			return err
		}
		d, err := image.Digest()
		if err != nil {
			return err
		}
		size, err := compressed(image)
		if err != nil {
			return err
		}
		bom := fmt.Sprintf("%s.%s.spdx.json", o.out, config.Architecture)
		if err := os.WriteFile(bom, boms[config.Architecture], 0o644); err != nil { //nolint:gosec // build outputs are for everybody
			return err
		}
		fmt.Printf("linux/%s  %s  %.1f MiB compressed, SBOM %s\n", config.Architecture, d, float64(size)/(1<<20), bom)
	}
	info, err := os.Stat(o.archive)
	if err != nil {
		return err
	}
	fmt.Printf("layout  %s\ntar     %s, %.1f MiB\n", o.out, o.archive, float64(info.Size())/(1<<20))
	return nil
}
