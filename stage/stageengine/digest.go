package stageengine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/families/family"
)

// Components of two models are one if nothing that results depend on tells them apart: settings, the tensors' names, types
// and shapes, and their bytes. Bytes are read only where all else agrees, in the background from the first Info on, so that
// neither a start nor an image waits for it.

// settings is all of a component that can be compared without reading its weights. That of an adapter has its name, by which
// options have numbers for it. The compute type is one, but for float32.
func settings(part *family.Component, network family.Network, c device.Compute) (string, error) {
	text, err := part.Settings()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	_, own, _ := strings.Cut(part.Name, "/")
	fmt.Fprintf(&b, "%s %s\n%s", own, part.Class, text)
	if c != device.ComputeF32 {
		fmt.Fprintf(&b, "computes %v\n", c)
	}
	if a, ok := network.(family.Adapter); ok {
		fmt.Fprintf(&b, "%q\n", a.Name())
	}
	for _, t := range network.Files().Tensors() {
		fmt.Fprintf(&b, "%q %v %v\n", t.Name, t.DType, t.Shape)
	}
	return b.String(), nil
}

// compare ends the declaring of many.
func (s *Stage) compare() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.declaring = false
	s.compareSettings()
}

// compareSettings finds out which components may be equal to another one. mu is held.
func (s *Stage) compareSettings() {
	count := map[string]int{}
	for _, b := range s.books {
		count[b.settings]++
	}
	for _, b := range s.books {
		b.alike.Store(!s.Outline && b.problem == nil && count[b.settings] > 1)
	}
}

// likely lists the components that may be equal to another one.
func (s *Stage) likely() (out []*book) {
	for _, b := range s.all() {
		if b.alike.Load() {
			out = append(out, b)
		}
	}
	return out
}

// hashing is the computing of digests in the background. The zero value is none.
type hashing struct {
	mu   sync.Mutex // a leaf
	end  context.CancelFunc
	done chan struct{} // closed when it has ended; nil while there is none
}

// startDigests has digests computed in the background, if any is missing, until the stage drains.
func (s *Stage) startDigests() {
	if !slices.ContainsFunc(s.likely(), func(b *book) bool { return b.digest.Load() == nil && !b.unreadable.Load() }) {
		return
	}
	h := &s.hashing
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done != nil || s.draining.Load() {
		return
	}
	ctx, end := context.WithCancel(context.Background())
	done := make(chan struct{})
	h.end, h.done = end, done
	go func() {
		defer end()
		s.digests(ctx)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.done = nil
		close(done)
	}()
}

// stop ends the computing, and returns when it has ended.
func (h *hashing) stop() {
	h.mu.Lock()
	end, done := h.end, h.done
	h.mu.Unlock()
	if done != nil {
		end()
		<-done
	}
}

// digests computes the missing digests of the components that may be equal to another one, until ctx ends.
func (s *Stage) digests(ctx context.Context) {
	for _, b := range s.likely() {
		if b.digest.Load() != nil || b.unreadable.Load() {
			continue
		}
		sum, err := s.hash(ctx, b, func(int64) {})
		if ctx.Err() != nil {
			return
		}
		if changed, _ := b.changed(); err != nil || changed {
			b.unreadable.Store(true) // what is wrong is told by the load
			continue
		}
		b.digest.Store(&sum)
	}
}

// hash reads all tensors that a component uses, and tells read of them.
func (s *Stage) hash(ctx context.Context, b *book, read func(bytes int64)) (string, error) {
	h := sha256.New()
	io.WriteString(h, b.settings) //nolint:errcheck // a hash takes everything
	err := b.readTo(ctx, s, nil, h, read)
	return hex.EncodeToString(h.Sum(nil)), err
}

// readTo writes the bytes of all tensors that a component uses to out, and takes prints of them, if there are any; read hears how many. The
// error of ctx, those of modeldir.
func (b *book) readTo(ctx context.Context, s *Stage, prints *weights.Prints, out io.Writer, read func(bytes int64)) error {
	opened, err := b.part.Open(s.opening())
	if err != nil {
		return err
	}
	net := opened.Files()
	defer net.Close() //nolint:errcheck // it was only read
	net.Watch(prints)
	to, buffer := &unhurried{out, ctx, func() bool { return s.working.Load() > 0 }, read}, make([]byte, 1<<20)
	for _, t := range net.Tensors() {
		section, err := net.Source().Section(t.Name)
		if err != nil {
			return err
		}
		if _, err := io.CopyBuffer(to, struct{ io.Reader }{section}, buffer); err != nil {
			return err
		}
	}
	return nil
}

// unhurried is a writer, such as a hash, that takes a twentieth of a processor while the stage works, and all of one else. It ends with ctx.
type unhurried struct {
	io.Writer
	ctx     context.Context
	working func() bool
	read    func(bytes int64)
}

func (u *unhurried) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	begin := time.Now()
	n, err := u.Writer.Write(p)
	u.read(int64(n))
	if u.working() {
		select {
		case <-time.After(19 * time.Since(begin)):
		case <-u.ctx.Done():
		}
	}
	return n, err
}

// Unread is the bytes that Equal reads.
func (s *Stage) Unread(components []string) (sum int64) {
	for _, b := range s.likely() {
		if slices.Contains(components, b.component.Name) {
			sum += b.network().Files().StoredBytes()
		}
	}
	return sum
}

// Equal groups those of some components that are equal to others; read hears of the bytes read. The error of ctx, ModelInvalid.
func (s *Stage) Equal(ctx context.Context, components []string, read func(bytes int64)) ([][]string, error) {
	alike := map[string][]string{} // by digest
	for _, b := range s.likely() {
		if !slices.Contains(components, b.component.Name) {
			continue
		}
		sum, err := s.hash(ctx, b, read)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			return nil, ModelError(err, s.kind, b.component.Model, b.of.path, b.of.vae)
		}
		alike[sum] = append(alike[sum], b.component.Name)
	}
	var out [][]string
	for _, names := range alike {
		if len(names) > 1 {
			out = append(out, names)
		}
	}
	slices.SortFunc(out, func(a, b []string) int { return cmp.Compare(a[0], b[0]) })
	return out, nil
}
