package stageengine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/stage"
)

// Parts of two models are one if nothing that results depend on tells them apart: settings, the tensors' names, types
// and shapes, and their bytes. Bytes are read only where all else agrees, in the background from the first Info on, so that
// neither a start nor an image waits for it.

// settings is all of a network that can be compared without reading its weights.
func settings(kind stage.Kind, dir *modeldir.Dir, net network) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n", kind)
	switch kind {
	case stage.KindEncoder:
		fmt.Fprintf(&b, "%+v\n", dir.Text)
		files, err := os.ReadDir(dir.Tokenizer())
		if err != nil {
			return "", err
		}
		for _, f := range files {
			path := filepath.Join(dir.Tokenizer(), f.Name())
			if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() { // a link's file
				continue
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "%q %x\n", f.Name(), sha256.Sum256(data))
		}
	case stage.KindDenoiser:
		schedule, err := dir.SchedulerConfig()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%+v %d %s\n%s\n", dir.UNet, dir.Tokens, dir.Scheduler(), schedule)
	case stage.KindDecoder:
		fmt.Fprintf(&b, "%+v\n", dir.VAE)
	}
	for _, t := range net.Tensors() {
		fmt.Fprintf(&b, "%q %v %v\n", t.Name, t.DType, t.Shape)
	}
	return b.String(), nil
}

// compareSettings finds out which models may be equal to another one. mu is held.
func (s *shelf[N]) compareSettings() {
	count := map[string]int{}
	for _, b := range s.books {
		count[b.settings]++
	}
	for _, b := range s.books {
		b.alike.Store(b.problem == nil && count[b.settings] > 1)
	}
}

// alike lists the models that may be equal to another one.
func (s *shelf[N]) alike() (out []*book[N]) {
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
func (s *shelf[N]) startDigests() {
	if !slices.ContainsFunc(s.alike(), func(b *book[N]) bool { return b.digest.Load() == nil && !b.unreadable.Load() }) {
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

// digests computes the missing digests of the models that may be equal to another one, until ctx ends.
func (s *shelf[N]) digests(ctx context.Context) {
	for _, b := range s.alike() {
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

// hash reads all tensors of a model's part, and tells read of them.
func (s *shelf[N]) hash(ctx context.Context, b *book[N], read func(bytes int64)) (string, error) {
	net, err := s.opened(b.path)
	if err != nil {
		return "", err
	}
	defer net.Close() //nolint:errcheck // it was only read
	h := sha256.New()
	io.WriteString(h, b.settings) //nolint:errcheck // a hash takes everything
	out := &unhurried{h, ctx, func() bool { return s.working.Load() > 0 }, read}
	buffer := make([]byte, 1<<20)
	for _, t := range net.Tensors() {
		section, err := net.Source().Section(t.Name)
		if err != nil {
			return "", err
		}
		if _, err := io.CopyBuffer(out, struct{ io.Reader }{section}, buffer); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// unhurried is a hash that takes a twentieth of a processor while the stage works, and all of one else. It ends with ctx.
type unhurried struct {
	hash.Hash
	ctx     context.Context
	working func() bool
	read    func(bytes int64)
}

func (u *unhurried) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	begin := time.Now()
	n, err := u.Hash.Write(p)
	u.read(int64(n))
	if u.working() {
		select {
		case <-time.After(19 * time.Since(begin)):
		case <-u.ctx.Done():
		}
	}
	return n, err
}

// filesOf lists the files that tensors are in.
func filesOf(tensors []modeldir.Tensor) []string {
	var out []string
	for _, t := range tensors {
		out = append(out, t.File)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
