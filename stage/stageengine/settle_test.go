package stageengine

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// TestSettle: it waits for work that was cancelled and has not noticed; then the scratch is back.
func TestSettle(t *testing.T) {
	const model = "tiny-v"
	library, err := OpenLibrary(filepath.Join(repo, "testdata/golden", model))
	if err != nil {
		t.Fatal(err)
	}
	dev, err := cpu.New(cpu.Options{Threads: 1, MemoryCapBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	d := newStage(stage.KindDenoiser, Options{Library: library, Device: dev})
	if err := d.Load(t.Context(), stage.LoadRequest{Component: partOf(d, model)}, nil); err != nil {
		t.Fatal(err)
	}
	weights := dev.Memory().UsedBytes
	ctx, cancel := context.WithCancel(t.Context())
	working, result := make(chan struct{}), make(chan error, 1)
	goOn := make(chan struct{})
	go func() {
		_, err := denoise(ctx, d, denoising{
			Model: model, States: tensor.FromF32(make([]float32, 77*48), 1, 77, 48),
			H: 4, W: 8, Steps: 6,
		}, stage.Observer{Ready: func(int) {
			close(working)
			<-goOn
		}})
		result <- err
	}()
	select {
	case <-working:
	case err := <-result:
		t.Fatal(err)
	}
	if p := d.Pulse(); p.Running != 0 || p.Moved == 0 { // whoever reads slowly is no hang of the stage
		t.Errorf("the pulse is %+v behind a load and while the caller is told", p)
	}
	cancel()
	soon, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if err := d.Settle(soon, partOf(d, model)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the work goes on: %v", err)
	}
	if used := dev.Memory().UsedBytes; used <= weights {
		t.Errorf("%d bytes are used at work, %d without", used, weights)
	}
	close(goOn)
	if err := d.Settle(t.Context(), partOf(d, model)); err != nil {
		t.Error(err)
	}
	if used := dev.Memory().UsedBytes; used != weights {
		t.Errorf("%d bytes are used when the work has settled, %d without it", used, weights)
	}
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("the work that was cancelled: %v", err)
	}
	if _, err := d.Evict(t.Context(), stage.EvictRequest{Component: partOf(d, model)}); err != nil {
		t.Error(err)
	}
}
