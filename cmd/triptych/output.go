package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// output writes the images of a request. A file appears whole or not at all.
type output struct {
	path    string
	probe   string // a temporary file that showed that the folder can be written
	count   int
	pending map[int32]*pendingImage
	written map[int32]string // by image
}

type pendingImage struct {
	ready *triptychv1alpha1.ImageReady
	data  []byte
}

// newOutput refuses a path that cannot be written, before any work is done.
func newOutput(path string) (*output, error) {
	name, err := probe("output", path)
	return &output{path: path, probe: name, count: 1, pending: map[int32]*pendingImage{}, written: map[int32]string{}}, err
}

// probe shows that the path of a flag can be written, by a temporary file beside it, whose name it gives.
func probe(flag, path string) (string, error) {
	if isDir(path) {
		return "", usageError{fmt.Errorf("--%s %s is a folder, expected a file", flag, path)}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".triptych-*")
	if err != nil {
		return "", usageError{fmt.Errorf("--%s %s cannot be written: %w", flag, path, err)}
	}
	return f.Name(), f.Close()
}

func (o *output) close() error { return os.Remove(o.probe) }

// take keeps what an event carries of an image, and writes an image that is complete.
func (o *output) take(event *triptychv1alpha1.GenerateResponse) error {
	switch e := event.GetEvent().(type) {
	case *triptychv1alpha1.GenerateResponse_Accepted:
		o.count = int(e.Accepted.GetSpec().GetImageCount())
	case *triptychv1alpha1.GenerateResponse_Preview:
		ext := filepath.Ext(o.path)
		return writeWhole(strings.TrimSuffix(o.name(e.Preview.GetImageIndex()), ext)+".preview.png", e.Preview.GetData())
	case *triptychv1alpha1.GenerateResponse_ImageReady:
		i := e.ImageReady.GetImageIndex()
		o.pending[i] = &pendingImage{e.ImageReady, e.ImageReady.GetData()}
		return o.finish(i)
	case *triptychv1alpha1.GenerateResponse_ImageChunk:
		i := e.ImageChunk.GetImageIndex()
		p := o.pending[i]
		if p == nil || int64(len(p.data)) != e.ImageChunk.GetOffset() {
			return fmt.Errorf("image %d: a part came out of order", i)
		}
		p.data = append(p.data, e.ImageChunk.GetData()...)
		return o.finish(i)
	}
	return nil
}

// finish writes image i if all of it is there.
func (o *output) finish(i int32) error {
	p := o.pending[i]
	if int64(len(p.data)) < p.ready.GetSizeBytes() {
		return nil
	}
	sum := sha256.Sum256(p.data)
	if !bytes.Equal(sum[:], p.ready.GetSha256()) {
		return fmt.Errorf("image %d arrived damaged: its SHA-256 is wrong", i)
	}
	name := o.name(i)
	if err := writeWhole(name, p.data); err != nil {
		return err
	}
	delete(o.pending, i)
	o.written[i] = name
	return nil
}

// name is the file of image i: the path, with a number from 1 if there are several.
func (o *output) name(i int32) string {
	if o.count <= 1 {
		return o.path
	}
	ext := filepath.Ext(o.path)
	return fmt.Sprintf("%s-%d%s", strings.TrimSuffix(o.path, ext), i+1, ext)
}

// writeWhole replaces a file at once, so that nobody sees half of it.
func writeWhole(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".triptych-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
