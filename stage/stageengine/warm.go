package stageengine

import (
	"context"
	"errors"
)

// Weights are cold, on the disk; warm, packed in the host's memory; or resident, on the device. The functions here need
// all of the book's latch.

// keep makes resident weights warm, if there is memory for that, and reports whether they are. The store goes with them.
// Where the device fails to offload one of them, both are to be dropped.
func (s *Stage) keep(ctx context.Context, b *book) bool {
	bytes := b.held.Load().bytes
	if !s.warmth.TryAcquire(bytes) {
		return false
	}
	err := b.weights.Offload(ctx)
	if err == nil && b.store != nil {
		err = b.store.Offload(ctx)
	}
	if err != nil {
		s.warmth.Release(bytes)
		s.Logger.Warn("weights cannot be kept warm", "model", b.component.Model, "error", err)
		return false
	}
	b.held.Store(&held{bytes: bytes, warm: true})
	return true
}

// rouse makes warm weights resident as they are. The error is that of device.Allocation, and they are warm still, or dropped
// where the device has room for the weights without the store and cannot offload them again.
func (s *Stage) rouse(ctx context.Context, b *book) error {
	if err := b.weights.Onload(ctx); err != nil {
		return err
	}
	if b.store != nil {
		if err := b.store.Onload(ctx); err != nil {
			if back := b.weights.Offload(context.WithoutCancel(ctx)); back != nil {
				err = errors.Join(err, back, s.drop(b))
			}
			return err
		}
	}
	bytes := b.held.Load().bytes
	b.held.Store(&held{bytes: bytes})
	s.warmth.Release(bytes)
	return nil
}

// drop frees resident or warm weights, and closes the files that they were streamed from.
func (s *Stage) drop(b *book) error {
	if b.store != nil {
		b.store.Close()
	}
	b.weights.Free()
	b.weights = nil
	if h := b.held.Swap(nil); h.warm {
		s.warmth.Release(h.bytes)
	}
	if b.stale.Swap(nil) != nil { // what was read of it is no measure of what follows
		b.prints = nil
		b.identity.Store(nil)
	}
	if err := b.network().Files().Close(); err != nil {
		return s.fault(err)
	}
	return nil
}
