package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// output writes the images of a request. A file appears whole or not at all.
type output struct {
	path    string
	stdout  io.Writer // nil if images go to files
	count   int
	pending map[piece]*pendingImage
	written map[piece]string
}

// piece is an image, or a unit of one.
type piece struct{ image, unit int32 }

type pendingImage struct {
	ready *triptychv1alpha1.ImageReady
	data  []byte
}

// newOutput refuses a path that cannot be written, before any work is done. stdout gets the image whose path is that.
func newOutput(path string, stdout io.Writer) (*output, error) {
	o := &output{path: path, count: 1, pending: map[piece]*pendingImage{}, written: map[piece]string{}}
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
		return writeWhole(ctx, strings.TrimSuffix(o.name(piece{image: e.Preview.GetImageIndex()}, 0), ext)+".preview.png", e.Preview.GetData())
	case *triptychv1alpha1.GenerateResponse_ImageReady:
		i := piece{e.ImageReady.GetImageIndex(), e.ImageReady.GetUnit()}
		if units := e.ImageReady.GetUnits(); units > 1 && isStream(o.path) {
			return usageError{fmt.Errorf("--output %s takes one image, and it comes in %d, expected the name of a file", o.path, units)}
		}
		o.pending[i] = &pendingImage{e.ImageReady, e.ImageReady.GetData()}
		return o.finish(ctx, i)
	case *triptychv1alpha1.GenerateResponse_ImageChunk:
		i := piece{e.ImageChunk.GetImageIndex(), e.ImageChunk.GetUnit()}
		p := o.pending[i]
		if p == nil || int64(len(p.data)) != e.ImageChunk.GetOffset() {
			return fmt.Errorf("image %d: a part came out of order", i.image)
		}
		p.data = append(p.data, e.ImageChunk.GetData()...)
		return o.finish(ctx, i)
	}
	return nil
}

// finish writes a piece if all of it is there.
func (o *output) finish(ctx context.Context, i piece) error {
	p := o.pending[i]
	if int64(len(p.data)) < p.ready.GetSizeBytes() {
		return nil
	}
	sum := sha256.Sum256(p.data)
	if !bytes.Equal(sum[:], p.ready.GetSha256()) {
		return fmt.Errorf("image %d arrived damaged: its SHA-256 is wrong", i.image)
	}
	name := o.name(i, p.ready.GetUnits())
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

// name is the file of a piece: the path, with numbers from 1 of the image, if there are several, and of its unit of so many.
func (o *output) name(i piece, units int32) string {
	ext := filepath.Ext(o.path)
	name := strings.TrimSuffix(o.path, ext)
	for _, of := range []struct{ at, all int32 }{{i.image, int32(o.count)}, {i.unit, units}} {
		if of.all > 1 {
			name += fmt.Sprintf("-%d", of.at+1)
		}
	}
	return name + ext
}

// pieces lists what was written, in order.
func (o *output) pieces() []piece {
	return slices.SortedFunc(maps.Keys(o.written), func(a, b piece) int { return cmp.Or(cmp.Compare(a.image, b.image), cmp.Compare(a.unit, b.unit)) })
}
