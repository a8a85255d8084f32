package pipeline

import (
	"context"
	"fmt"
	"sync"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// previews decodes estimates of one image while it denoises: the newest only, and only when the
// decoder is free and fits beside the denoiser. Previews never make a request wait.
type previews struct {
	newest chan preview // of capacity 1
	done   sync.WaitGroup
	stop   context.CancelFunc
}

type preview struct {
	step   int
	latent stage.Latent
}

func (j *job) previews(ctx context.Context, image int) *previews {
	ctx, stop := context.WithCancel(ctx)
	p := &previews{newest: make(chan preview, 1), stop: stop}
	if j.spec.PreviewEveryNSteps == 0 {
		return p
	}
	p.done.Go(func() {
		warned := false
		for {
			select {
			case <-ctx.Done():
				return
			case v := <-p.newest:
				if why := j.showPreview(ctx, image, v); why != "" && !warned && ctx.Err() == nil {
					warned = true
					j.emit(Warning{Code: PreviewSkipped, Message: why})
				}
			}
		}
	})
	return p
}

// offer replaces the preview that waits. It is called from one goroutine.
func (p *previews) offer(step int, estimate stage.Latent) {
	select {
	case <-p.newest:
	default:
	}
	p.newest <- preview{step, estimate}
}

// close stops previews and waits until none is at work.
func (p *previews) close() {
	p.stop()
	p.done.Wait()
}

// showPreview decodes one estimate and emits it, or tells why not.
func (j *job) showPreview(ctx context.Context, image int, v preview) (why string) {
	lease, ok := j.Keeper.TryAcquire(ctx, residency.AcquireRequest{Job: j.id, Need: j.need(stage.KindDecoder), Observer: residency.Observer{Event: j.decided}})
	if !ok {
		return "the decoder is busy or does not fit into memory beside the denoiser"
	}
	err := errPanic
	defer func() { j.release(ctx, lease, err) }()
	decoded, err := j.Fleet.Decoder(lease.Stage).Decode(ctx, stage.DecodeRequest{Model: j.part(stage.KindDecoder), Latent: v.latent, Format: stage.PNG})
	switch {
	case err != nil:
		return fmt.Sprintf("the decoder failed: %v", err)
	case len(decoded.Data) > MaxPreviewBytes:
		return fmt.Sprintf("it has %s, more than %s", stage.Size(int64(len(decoded.Data))), stage.Size(MaxPreviewBytes))
	}
	j.emit(Preview{Image: image, Step: v.step, File: decoded})
	return ""
}
