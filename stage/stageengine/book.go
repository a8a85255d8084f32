package stageengine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/engine/tokenizer"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

// book is one model's network, of files as they were at one time. When they have changed and nothing is held of them any more,
// another book takes its place.
//
// latch orders access to weights: work takes 1 of it, loading, eviction and replacement take all. It is fair, so
// an eviction waits for the work before it and work behind it finds the weights gone.
type book[N network] struct {
	path      string
	component stage.Component
	net       atomic.Pointer[N] // declared; its files are closed, or open while weights are streamed from them. Plans read it while loads exchange it
	problem   *stage.Error      // why net is not there
	latch     *semaphore.Weighted
	store     *store                 // held with the weights; only an encoder has one
	weights   device.Weights         // nil when neither resident nor warm
	held      atomic.Pointer[held]   // nil with weights; Info, which takes no latch, reads it
	stale     atomic.Pointer[string] // why what is held is not to be used again; nil if it may be
	replaced  atomic.Bool            // by another book, or its model is gone

	tokenizer *tokenizer.CLIP // of an encoder
	schedule  sampler.Config  // of a denoiser
	tokens    int             // of a prompt, to a denoiser: what its plans are made for

	settings   string      // see settings
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

// declare opens the files of a model as they are now. What is wrong with them is kept for those who ask for it.
func (s *shelf[N]) declare(name, path string) *book[N] {
	b := &book[N]{path: path, component: stage.Component{Model: name}, latch: semaphore.NewWeighted(whole)}
	before, _ := modeldir.Stamp(path, nil)
	if err := b.open(s); err != nil {
		b.problem = modelError(err, s.kind, name, path)
		b.component.Problem, b.files = b.problem.Message, nil
	}
	for _, warning := range b.component.Warnings {
		s.Logger.Warn("a model is not as expected", "model", name, "warning", warning)
	}
	if after, _ := modeldir.Stamp(path, nil); after == before {
		b.stamp, _ = modeldir.Stamp(path, b.files)
	}
	b.component.Stamp = fmt.Sprintf("%x", sha256.Sum256([]byte(b.settings+"\n"+b.stamp)))
	return b
}

func (b *book[N]) open(s *shelf[N]) error {
	dir, err := s.dir(b.path)
	if err != nil {
		return err
	}
	net, err := s.open(dir)
	if err != nil {
		return err
	}
	b.net.Store(&net)
	plan, _ := s.loadPlan(b, net.Manifest(), 0)
	b.component.WeightsBytes = s.Device.WeightBytes(net.Manifest(), plan)
	b.component.Warnings = net.Warnings()
	b.files = filesOf(net.Tensors())
	if err = errors.Join(s.describe(dir, net, b), net.Close()); err != nil {
		return err
	}
	b.settings, err = settings(s.kind, dir, net)
	return err
}

// changed reports whether the files are others than those that were declared, and whether all are there.
func (b *book[N]) changed() (changed, complete bool) {
	now, complete := modeldir.Stamp(b.path, b.files)
	return now != b.stamp, complete
}

// resident reports whether the weights are on the device and may be used. It takes no latch.
func (b *book[N]) resident() (bytes int64, ok bool) {
	h := b.held.Load()
	if h == nil || h.warm || b.stale.Load() != nil {
		return 0, false
	}
	return h.bytes, true
}

// distrust has what is held evicted, and not used again. Part of the latch is held.
func (b *book[N]) distrust(why string) { b.stale.CompareAndSwap(nil, &why) }

// network is the one declared last.
func (b *book[N]) network() N { return *b.net.Load() }

// read opens the model's files anew, so that they are open only while they are read: by the load, or until the
// eviction if weights are streamed. Files that change meanwhile are ModelChanged.
func (b *book[N]) read(ctx context.Context, s *shelf[N], limitBytes int64, progress func(done int64)) error {
	net, err := s.opened(b.path)
	if err != nil {
		return err
	}
	plan, streamed := s.loadPlan(b, net.Manifest(), limitBytes)
	if !streamed || b.prints == nil {
		b.prints = &weights.Prints{}
	}
	net.Watch(b.prints)
	weights, err := s.Device.Load(ctx, net.Manifest(), plan, net.Source(), progress)
	if err != nil || !streamed {
		err = errors.Join(err, net.Close())
	}
	if changed, _ := b.changed(); err == nil && changed {
		err = errors.Join(s.changedError(b), net.Close())
	}
	if err != nil {
		if weights != nil {
			weights.Free()
		}
		return err
	}
	bytes := weights.Bytes()
	if b.store != nil {
		if err := b.store.open(s.Device, weights); err != nil {
			weights.Free()
			return errors.Join(err, net.Close())
		}
		bytes += b.store.bytes
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
func (b *book[N]) identify() {
	if b.identity.Load() != nil {
		return
	}
	if print, known := b.network().Print(b.prints); known {
		identity := fmt.Sprintf("%x", sha256.Sum256(append([]byte(b.settings), print[:]...)))
		b.identity.Store(&identity)
	}
}

// edition is that of what is held.
func (b *book[N]) edition() stage.Edition {
	e := stage.Edition{Stamp: b.component.Stamp}
	if identity := b.identity.Load(); identity != nil {
		e.Identity = *identity
	}
	return e
}
