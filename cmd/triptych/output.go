package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// output writes the images of a request. A file appears whole or not at all.
type output struct {
	path    string
	stdout  io.Writer // nil if images go to files
	count   int
	pending map[int32]*pendingImage
	written map[int32]string // by image
}

type pendingImage struct {
	ready *triptychv1alpha1.ImageReady
	data  []byte
}

// newOutput refuses a path that cannot be written, before any work is done. stdout gets the image whose path is that.
func newOutput(path string, stdout io.Writer) (*output, error) {
	o := &output{path: path, count: 1, pending: map[int32]*pendingImage{}, written: map[int32]string{}}
	if isStandardOutput(path) {
		o.stdout = stdout
	}
	return o, probe("output", path)
}

// take keeps what an event carries of an image, and writes an image that is complete.
func (o *output) take(ctx context.Context, event *triptychv1alpha1.GenerateResponse) error {
	switch e := event.GetEvent().(type) {
	case *triptychv1alpha1.GenerateResponse_Accepted:
		o.count = int(e.Accepted.GetSpec().GetImageCount())
	case *triptychv1alpha1.GenerateResponse_Preview:
		ext := filepath.Ext(o.path)
		return writeWhole(ctx, strings.TrimSuffix(o.name(e.Preview.GetImageIndex()), ext)+".preview.png", e.Preview.GetData())
	case *triptychv1alpha1.GenerateResponse_ImageReady:
		i := e.ImageReady.GetImageIndex()
		o.pending[i] = &pendingImage{e.ImageReady, e.ImageReady.GetData()}
		return o.finish(ctx, i)
	case *triptychv1alpha1.GenerateResponse_ImageChunk:
		i := e.ImageChunk.GetImageIndex()
		p := o.pending[i]
		if p == nil || int64(len(p.data)) != e.ImageChunk.GetOffset() {
			return fmt.Errorf("image %d: a part came out of order", i)
		}
		p.data = append(p.data, e.ImageChunk.GetData()...)
		return o.finish(ctx, i)
	}
	return nil
}

// finish writes image i if all of it is there.
func (o *output) finish(ctx context.Context, i int32) error {
	p := o.pending[i]
	if int64(len(p.data)) < p.ready.GetSizeBytes() {
		return nil
	}
	sum := sha256.Sum256(p.data)
	if !bytes.Equal(sum[:], p.ready.GetSha256()) {
		return fmt.Errorf("image %d arrived damaged: its SHA-256 is wrong", i)
	}
	name := o.name(i)
	if err := o.write(ctx, name, p.data); err != nil {
		return err
	}
	delete(o.pending, i)
	o.written[i] = name
	return nil
}

func (o *output) write(ctx context.Context, name string, data []byte) error {
	if o.stdout == nil {
		return writeWhole(ctx, name, data)
	}
	return whileLasts(ctx, func() error {
		_, err := o.stdout.Write(data)
		return err
	})
}

// name is the file of image i: the path, with a number from 1 if there are several.
func (o *output) name(i int32) string {
	if o.count <= 1 {
		return o.path
	}
	ext := filepath.Ext(o.path)
	return fmt.Sprintf("%s-%d%s", strings.TrimSuffix(o.path, ext), i+1, ext)
}
