package stageengine

import (
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
func (s *Stage) refresh(ctx context.Context) {
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

// look brings models and books up to date with the files.
func (s *Stage) look() {
	paths := s.Library.look()
	s.mu.Lock()
	s.declaring = true
	s.mu.Unlock()
	defer s.compare()
	for name, path := range paths {
		m := s.model(name)
		if m == nil || m.path != path {
			s.declare(name, path)
		} else if changed, complete := m.changed(); changed && (complete || !s.holds(m)) {
			s.declare(name, path)
		}
	}
	held := map[string]bool{} // models
	for _, b := range s.all() {
		why := ""
		if changed, complete := b.changed(); paths[b.of.name] != b.of.path {
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
		held[b.of.name] = held[b.of.name] || s.book(b.component.Name) == b
	}
	for _, m := range s.known() {
		if paths[m.name] == "" && !held[m.name] {
			s.mu.Lock()
			delete(s.models, m.name)
			s.mu.Unlock()
		}
	}
}

// holds reports whether anything is held of a model.
func (s *Stage) holds(m *model) bool {
	return slices.ContainsFunc(s.all(), func(b *book) bool { return b.of.name == m.name && b.held.Load() != nil })
}

// folderGone is why weights of a model that was removed are stale.
const folderGone = "its folder is gone"

// renew replaces a book of which nothing is held by what the files are now, if they are there. All of its latch is held.
func (s *Stage) renew(b *book) {
	var next *book
	if path, err := s.Library.Path(b.of.name); err == nil {
		m := s.model(b.of.name)
		if m == nil || m.path != path {
			m = s.declare(b.of.name, path)
		} else if changed, _ := m.changed(); changed {
			m = s.declare(b.of.name, path)
		}
		for _, part := range s.parts(m) {
			if part.Name == b.component.Name {
				next = s.newBook(m, part)
			}
		}
	}
	s.put(b.component.Name, b, next)
}

// put has a book take the place of another one of a component, unless somebody else has it already. Either may be nil.
func (s *Stage) put(component string, old, b *book) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.books[component] != old {
		return
	}
	if old != nil {
		old.replaced.Store(true)
	}
	if b == nil {
		delete(s.books, component)
	} else {
		s.books[component] = b
	}
	if !s.declaring {
		s.compareSettings()
	}
}

// latched is the book of a component, with so much of its latch held; nil if there is none.
func (s *Stage) latched(ctx context.Context, component string, n int64) (*book, error) {
	for {
		b := s.book(component)
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

// current is the book of a component, with all of its latch held: declared of the files as they are now, or with resident weights.
func (s *Stage) current(ctx context.Context, component string) (*book, error) {
	var b *book
	for range maxRenewals {
		if _, err := s.find(component); err != nil {
			return nil, err
		}
		var err error
		if b, err = s.latched(ctx, component, whole); err != nil {
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
