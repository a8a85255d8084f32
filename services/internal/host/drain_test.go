package host

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestDrainOutlivesChild drains, kills, and finds the next child of a draining stage.
func TestDrainOutlivesChild(t *testing.T) {
	clock := newFakeTime()
	d := Denoiser{open(t, options(stage.KindDenoiser, scriptKey+"=hold denoise 2"), clock.clock())}
	load(t, d)
	begun, result := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := d.Denoise(t.Context(), stagetest.DenoiseRequest(), stage.DenoiseObserver{
			Progress: func(int, int) { close(begun) },
		})
		result <- err
	}()
	await(t, "Denoise to begin", begun)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := d.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain did not wait for Denoise: %v", err)
	}
	drains, _ := d.Draining()
	await(t, "the signal that the stage drains", drains)
	drained := make(chan error, 1)
	go func() { drained <- d.Drain(t.Context()) }()
	kill(t, d.Host)
	wantDied(t, d.Host, await(t, "Denoise to end", result))
	if err := await(t, "Drain", drained); err != nil {
		t.Errorf("Drain of a child that died: %v", err)
	}
	restart := clock.expect(t, 0)
	if err := d.Drain(t.Context()); err != nil {
		t.Errorf("Drain without a child: %v", err)
	}
	if err := d.Load(t.Context(), stage.LoadRequest{Model: stagetest.Model}, nil); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("Load while draining, without a child: %v", err)
	}
	close(restart.end)
	if info, err := d.Info(t.Context()); err != nil || !info.Draining || info.Generation != 2 {
		t.Errorf("Info of the next child: %+v, %v", info, err)
	}
	if err := d.Load(t.Context(), stage.LoadRequest{Model: stagetest.Model}, nil); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("Load while draining: %v", err)
	}
}

// TestUndrain: a drained stage works again, with its child and with the next; one that shuts down does not.
func TestUndrain(t *testing.T) {
	h := open(t, options(stage.KindEncoder), realTime())
	for range 2 {
		if err := h.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, over := h.Draining()
		if err := h.Undrain(t.Context()); err != nil {
			t.Fatal(err)
		}
		await(t, "the signal that it drains no more", over)
		if info, err := h.Info(t.Context()); err != nil || info.Draining {
			t.Errorf("Info: %+v, %v", info, err)
		}
		if err := h.Load(t.Context(), stage.LoadRequest{Model: stagetest.Model}, nil); err != nil {
			t.Errorf("Load: %v", err)
		}
	}
	if err := h.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	kill(t, h)
	if err := h.Undrain(t.Context()); err != nil {
		t.Errorf("Undrain without a child: %v", err)
	}
	if err := h.Load(t.Context(), stage.LoadRequest{Model: stagetest.Model}, nil); err != nil {
		t.Errorf("Load into the next child: %v", err)
	}
	if err := h.Shut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Undrain(t.Context()); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("Undrain while it shuts down: %v", err)
	}
}

// TestDrainEndsWaiting drains while work waits for the next child.
func TestDrainEndsWaiting(t *testing.T) {
	clock := newFakeTime()
	h := open(t, options(stage.KindEncoder), clock.clock())
	kill(t, h)
	clock.expect(t, 0)
	result := make(chan error, 1)
	go func() { result <- h.Load(t.Context(), stage.LoadRequest{Model: stagetest.Model}, nil) }()
	if err := h.Drain(t.Context()); err != nil {
		t.Errorf("Drain: %v", err)
	}
	if err := await(t, "Load", result); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("Load that waited: %v", err)
	}
}
