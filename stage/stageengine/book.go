package stageengine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// book is one component, of files as they were at one time. When they have changed and nothing is held of them any more,
// another book takes its place.
//
// latch orders access to weights: work takes 1 of it, loading, eviction and replacement take all. It is fair, so
// an eviction waits for the work before it and work behind it finds the weights gone.
type book struct {
	of        *model
	part      *family.Component
	component stage.Component
	net       atomic.Pointer[family.Network] // declared; its files are closed, or open while weights are streamed from them. Plans read it while loads exchange it
	problem   *stage.Error                   // why it cannot be loaded
	latch     *semaphore.Weighted
	store     *family.Store          // held with the weights; nil if there is none
	weights   device.Weights         // nil when neither resident nor warm
	held      atomic.Pointer[held]   // nil with weights; Info, which takes no latch, reads it
	stale     atomic.Pointer[string] // why what is held is not to be used again; nil if it may be
	replaced  atomic.Bool            // by another book, or its model is gone

	settings   string      // all that results depend on but the bytes of the weights
	alike      atomic.Bool // another one has them as well
	files      []string    // of the weights
	stamp      string      // of the files that were declared; empty if they changed meanwhile
	digest     atomic.Pointer[string]
	unreadable atomic.Bool            // the digest could not be computed
	prints     *weights.Prints        // of what was read last, whole or in part
	identity   atomic.Pointer[string] // of that; nil while not all has been read
}

// held is what weights and store take, where they are.
type held struct {
	bytes int64
	warm  bool // in the host's memory; else on the device
}

const whole = int64(1) << 62

// newBook declares a component of a model's files as they are now. What is wrong with them is kept for those who ask for it.
func (s *Stage) newBook(m *model, part *family.Component) *book {
	b := &book{of: m, part: part, component: stage.Component{Name: part.Name, Model: m.name}, latch: semaphore.NewWeighted(whole)}
	before, _ := m.look(m.files.Folders, nil)
	if err := b.open(s); err != nil {
		b.problem = ModelError(err, s.kind, m.name, m.path, m.vae)
		b.component.Problem, b.files = b.problem.Message, nil
	}
	for _, warning := range b.component.Warnings {
		s.Logger.Warn("a model is not as expected", "model", m.name, "warning", warning)
	}
	after, _ := m.look(m.files.Folders, nil)
	if changed, _ := m.changed(); after == before && !changed {
		b.stamp, _ = m.look(m.files.Folders, b.files)
	}
	b.component.Stamp = fmt.Sprintf("%x", sha256.Sum256([]byte(b.settings+"\n"+b.stamp)))
	return b
}

func (b *book) open(s *Stage) error {
	if problem := errors.Join(b.of.files.Problem, b.part.Problem); problem != nil && !s.Outline {
		return problem
	}
	net, err := b.part.Open(s.opening())
	if err != nil {
		return err
	}
	files := net.Files()
	b.net.Store(&net)
	plan, _ := s.loadPlan(b, files.Manifest(), 0)
	b.component.WeightsBytes = s.Device.WeightBytes(files.Manifest(), plan)
	b.component.Warnings = slices.Concat(files.Warnings(), b.part.Warnings)
	for _, t := range files.Tensors() {
		b.files = append(b.files, t.File)
	}
	slices.Sort(b.files)
	b.files = slices.Compact(b.files)
	b.store, err = family.NewStore(s.Device, files.Manifest(), b.part.Beside)
	b.component.WeightsBytes += b.store.Bytes()
	if err = errors.Join(err, files.Close()); err != nil || s.Outline {
		return err
	}
	b.settings, err = settings(b.part, net, s.Compute[s.kind])
	return err
}

// opening is how the stage opens networks.
func (s *Stage) opening() modeldir.Options {
	return modeldir.Options{Resident: s.Precision[s.kind], Outline: s.Outline}
}

// changed reports whether the files are others than those that were declared, and whether all are there.
func (b *book) changed() (changed, complete bool) {
	now, complete := b.of.look(b.of.files.Folders, b.files)
	return now != b.stamp, complete
}

// resident reports whether the weights are on the device and may be used. It takes no latch.
func (b *book) resident() (bytes int64, ok bool) {
	h := b.held.Load()
	if h == nil || h.warm || b.stale.Load() != nil {
		return 0, false
	}
	return h.bytes, true
}

// distrust has what is held evicted, and not used again. Part of the latch is held.
func (b *book) distrust(why string) { b.stale.CompareAndSwap(nil, &why) }

// network is the one declared last.
func (b *book) network() family.Network { return *b.net.Load() }

// read opens the component's files anew, so that they are open only while they are read: by the load, or until the
// eviction if weights are streamed. Files that change meanwhile are ModelChanged.
func (b *book) read(ctx context.Context, s *Stage, limitBytes int64, progress func(done int64)) error {
	net, err := b.part.Open(s.opening())
	if err != nil {
		return err
	}
	files := net.Files()
	plan, streamed := s.loadPlan(b, files.Manifest(), limitBytes)
	if !streamed || b.prints == nil {
		b.prints = &weights.Prints{}
	}
	files.Watch(b.prints)
	weights, err := s.Device.Load(ctx, files.Manifest(), plan, files.Source(), progress)
	if err != nil || !streamed {
		err = errors.Join(err, files.Close())
	}
	if changed, _ := b.changed(); err == nil && changed {
		err = errors.Join(s.changedError(b), files.Close())
	}
	if err != nil {
		if weights != nil {
			weights.Free()
		}
		return err
	}
	bytes := weights.Bytes()
	if b.store != nil {
		if err := b.store.Open(s.Device, weights); err != nil {
			weights.Free()
			return errors.Join(err, files.Close())
		}
		bytes += b.store.Bytes()
	}
	b.net.Store(&net)
	b.weights = weights
	if !streamed {
		b.identity.Store(nil)
	}
	b.identify()
	b.held.Store(&held{bytes: bytes})
	return nil
}

// identify finds out the identity, if it is not known and all has been read. Part of the latch is held.
func (b *book) identify() {
	if b.identity.Load() != nil {
		return
	}
	if print, known := b.network().Files().Print(b.prints); known {
		identity := fmt.Sprintf("%x", sha256.Sum256(append([]byte(b.settings), print[:]...)))
		b.identity.Store(&identity)
	}
}

// edition is that of what is held.
func (b *book) edition() stage.Edition {
	e := stage.Edition{Stamp: b.component.Stamp}
	if identity := b.identity.Load(); identity != nil {
		e.Identity = *identity
	}
	return e
}
