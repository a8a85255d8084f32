package stageengine

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// The models are looked at again whenever Info is asked for: those that were added are declared, those that are gone are
// forgotten, and those whose files have changed declared anew, once nothing is held of them any more. A look lists folders and
// asks for the sizes and times of files.

// looks are in the background, so that a file system that does not answer holds up nobody for long.
type looks struct {
	mu   sync.Mutex
	done chan struct{} // of the one under way, nil if there is none
	next time.Time     // not before
}

const (
	// lookShare is what looks take at most of the time: one that was slow is not followed by another one soon.
	lookShare = 1.0 / 20
	// lookPatience is how long Info waits for a look.
	lookPatience = 500 * time.Millisecond
)

// refresh looks at the models, or waits for the look that is under way.
func (s *shelf[N]) refresh(ctx context.Context) {
	s.looks.mu.Lock()
	begin := time.Now()
	if s.looks.done == nil && !begin.Before(s.looks.next) {
		done := make(chan struct{})
		s.looks.done = done
		go func() {
			defer close(done)
			s.look()
			s.looks.mu.Lock()
			defer s.looks.mu.Unlock()
			end := time.Now()
			s.looks.done, s.looks.next = nil, end.Add(time.Duration(float64(end.Sub(begin))*(1/lookShare-1)))
		}()
	}
	done := s.looks.done
	s.looks.mu.Unlock()
	if done == nil {
		return
	}
	patience := time.NewTimer(lookPatience)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
	case <-ctx.Done():
	}
}

// look brings the books up to date with the files.
func (s *shelf[N]) look() {
	paths := s.Library.look()
	for name, path := range paths {
		if s.book(name) == nil {
			s.put(nil, s.declare(name, path))
		}
	}
	for _, b := range s.all() {
		why := ""
		if changed, complete := b.changed(); paths[b.component.Model] != b.path {
			why = folderGone
		} else if changed && (complete || b.held.Load() == nil) { // of files that cannot be seen, what is held is good still
			why = "its files have changed"
		}
		switch {
		case why == "":
		case b.latch.TryAcquire(whole):
			if b.held.Load() == nil {
				s.renew(b)
			} else {
				b.distrust(why)
			}
			b.latch.Release(whole)
		case b.latch.TryAcquire(1): // beside its work
			if b.held.Load() != nil {
				b.distrust(why)
			}
			b.latch.Release(1)
		}
	}
}

// folderGone is why weights of a model that was removed are stale.
const folderGone = "its folder is gone"

// renew replaces a book of which nothing is held by what the files are now, if they are there. All of its latch is held.
func (s *shelf[N]) renew(b *book[N]) {
	name := b.component.Model
	if path, err := s.Library.path(name); err == nil {
		s.put(b, s.declare(name, path))
	} else {
		s.put(b, nil)
	}
}

// put has a book take the place of another one, unless somebody else has it already. Either may be nil.
func (s *shelf[N]) put(old, b *book[N]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := ""
	if b != nil {
		name = b.component.Model
	} else {
		name = old.component.Model
	}
	if s.books[name] != old {
		return
	}
	if old != nil {
		old.replaced.Store(true)
	}
	if b == nil {
		delete(s.books, name)
	} else {
		s.books[name] = b
	}
	s.compareSettings()
}

// book is that of a model, nil if there is none.
func (s *shelf[N]) book(model string) *book[N] {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.books[model]
}

// all are the books by name.
func (s *shelf[N]) all() []*book[N] {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*book[N]
	for _, b := range s.books {
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b *book[N]) int { return cmp.Compare(a.component.Model, b.component.Model) })
	return out
}

// latched is the book of a model, with so much of its latch held; nil if there is none.
func (s *shelf[N]) latched(ctx context.Context, model string, n int64) (*book[N], error) {
	for {
		b := s.book(model)
		if b == nil {
			return nil, nil
		}
		if err := b.latch.Acquire(ctx, n); err != nil {
			return nil, err
		}
		if !b.replaced.Load() {
			return b, nil
		}
		b.latch.Release(n)
	}
}

// current is the book of a model, with all of its latch held: declared of the files as they are now, or with resident weights.
func (s *shelf[N]) current(ctx context.Context, model string) (*book[N], error) {
	var b *book[N]
	for range maxRenewals {
		if _, err := s.find(model); err != nil {
			return nil, err
		}
		var err error
		if b, err = s.latched(ctx, model, whole); err != nil {
			return nil, err
		}
		if b == nil {
			continue // it is gone: find says so
		}
		if _, ok := b.resident(); ok {
			return b, nil
		}
		changed, _ := b.changed()
		if !changed {
			return b, nil
		}
		if b.held.Load() != nil {
			err = s.drop(b)
		}
		s.renew(b)
		b.latch.Release(whole)
		if err != nil {
			return nil, err
		}
	}
	return nil, s.changedError(b)
}

// maxRenewals is how often a load finds files that were changed while it looked at them, before it says so.
const maxRenewals = 3
