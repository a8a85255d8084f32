package residency

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/stage"
)

// next is what a watch reads now; the test fails if that is nothing.
func next(t *testing.T, w *Watch) News {
	t.Helper()
	n, err := w.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestWatch: a snapshot comes first, and the events after it lead to the next snapshot.
func TestWatch(t *testing.T) {
	h := newHouse(t, 1000, Options{})
	h.acquire(stage.KindEncoder).Release()
	w := h.Watch()
	defer w.Close()
	first := next(t, w)
	if first.Snapshot == nil || first.Dropped != 0 {
		t.Fatalf("the first is %+v", first)
	}
	if diff := cmp.Diff([]ComponentUse{{Stage: "encoder", Kind: stage.KindEncoder, Component: "m/text_encoder", State: Resident, WeightsBytes: 40}}, first.Snapshot.Components); diff != "" {
		t.Error(diff)
	}
	used := first.Snapshot.Devices[0].UsedBytes
	lease := h.acquire(stage.KindDenoiser)
	var actions []Action
	for range 4 {
		n := next(t, w)
		if actions = append(actions, n.Event.Action); n.Event.Action == Reserve {
			used += n.Event.Bytes
		}
	}
	if diff := cmp.Diff([]Action{Reserve, Load, Loaded, Grant}, actions); diff != "" {
		t.Error(diff)
	}
	if now := h.used(); now != used {
		t.Errorf("the events lead to %d bytes, %d are used", used, now)
	}
	lease.Release()
	w.Close()
	if w.Close(); len(h.watches) != 0 {
		t.Errorf("%d watches are left", len(h.watches))
	}
}

// TestSlowWatch: one that does not read holds up nobody. It loses what came too fast, is told how much,
// and goes on from a snapshot.
func TestSlowWatch(t *testing.T) {
	h := newHouse(t, 1000, Options{})
	h.acquire(stage.KindEncoder).Release()
	slow, quick := h.Watch(), h.Watch()
	defer slow.Close()
	defer quick.Close()
	next(t, slow)
	next(t, quick)
	told := 0
	turn := func() {
		h.acquire(stage.KindEncoder).Release()
		for range 3 { // Reserve, Grant, Release
			if n := next(t, quick); n.Snapshot != nil {
				t.Fatal("one that reads lost events")
			}
			told++
		}
	}
	for told <= maxQueued {
		turn()
	}
	turn()
	n := next(t, slow)
	if n.Snapshot == nil || n.Dropped != told {
		t.Fatalf("after %d events: %+v", told, n)
	}
	turn()
	if n := next(t, slow); n.Event.Action != Reserve || n.Dropped != told-3 {
		t.Errorf("after the snapshot: %+v", n)
	}
}

// TestWatchEnds: with its context, for the reason that it has, and with the Keeper.
func TestWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 1000, Options{})
		w := h.Watch()
		next(t, w)
		ctx, cancel := context.WithCancelCause(t.Context())
		why := stage.Errorf(stage.StageDraining, "because")
		ended := make(chan error)
		go func() {
			_, err := w.Next(ctx)
			ended <- err
		}()
		synctest.Wait()
		cancel(why)
		if err := <-ended; !errors.Is(err, error(why)) {
			t.Errorf("ended with %v", err)
		}
		go func() {
			_, err := w.Next(t.Context())
			ended <- err
		}()
		synctest.Wait()
		h.Close()
		if err := <-ended; stage.ReasonOf(err) != stage.StageDraining {
			t.Errorf("ended with %v", err)
		}
		if _, err := h.Watch().Next(t.Context()); stage.ReasonOf(err) != stage.StageDraining {
			t.Errorf("after Close: %v", err)
		}
		w.Close()
	})
}
