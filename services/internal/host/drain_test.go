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
	d := open(t, options(stage.KindDenoiser, scriptKey+"=hold denoise 2"), clock.clock())
	load(t, d)
	begun, result := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := d.Work(t.Context(), stagetest.Request(stage.KindDenoiser), stage.Observer{
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
	kill(t, d)
	wantDied(t, d, await(t, "Denoise to end", result))
	if err := await(t, "Drain", drained); err != nil {
		t.Errorf("Drain of a child that died: %v", err)
	}
	restart := clock.expect(t, 0)
	if err := d.Drain(t.Context()); err != nil {
		t.Errorf("Drain without a child: %v", err)
	}
	if err := d.Load(t.Context(), loading(d), nil); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("Load while draining, without a child: %v", err)
	}
	close(restart.end)
	if info, err := d.Info(t.Context()); err != nil || !info.Draining || info.Generation != 2 {
		t.Errorf("Info of the next child: %+v, %v", info, err)
	}
	if err := d.Load(t.Context(), loading(d), nil); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("Load while draining: %v", err)
	}
	if err := take(t.Context(), d); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("work while draining: %v", err)
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
		if err := h.Load(t.Context(), loading(h), nil); err != nil {
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
	if err := h.Load(t.Context(), loading(h), nil); err != nil {
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
	go func() { result <- h.Load(t.Context(), loading(h), nil) }()
	if err := h.Drain(t.Context()); err != nil {
		t.Errorf("Drain: %v", err)
	}
	if err := await(t, "Load", result); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("Load that waited: %v", err)
	}
}

// TestDrainWaitsForImage: an image that is being encoded is work like any other.
func TestDrainWaitsForImage(t *testing.T) {
	h := open(t, options(stage.KindDecoder, scriptKey+"=hold encode_image 1"), realTime())
	req := stagetest.ImageRequest()
	if err := h.Load(t.Context(), stage.LoadRequest{Component: req.Components[0]}, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := h.Work(ctx, req, stage.Observer{})
		result <- err
	}()
	for { // until its scratch is taken
		info, err := h.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.UsedBytes > info.Resident[0].WeightsBytes {
			break
		}
	}
	waits := map[string]func(context.Context) error{
		"Drain": h.Drain, "Settle": func(ctx context.Context) error { return h.Settle(ctx, req.Components[0]) },
	}
	for name, wait := range waits {
		short, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer end()
		if err := wait(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s did not wait for the image: %v", name, err)
		}
	}
	cancel()
	if err := await(t, "the image to end", result); !errors.Is(err, context.Canceled) {
		t.Errorf("work that was cancelled: %v", err)
	}
	for name, wait := range waits {
		if err := wait(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
