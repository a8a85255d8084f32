package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/triptych-serving/triptych/stage"
)

// previews shows the estimates of a step, for one image while it denoises: the newest only. One that is an image is shown as it
// is; of others the turn that takes them makes one, only when its stage is free and fits beside the denoiser. Previews never make a
// request wait.
type previews struct {
	newest chan preview // of capacity 1
	done   sync.WaitGroup
	stop   context.CancelFunc
}

type preview struct {
	step     int
	estimate stage.Values
}

// previews begins to show the estimates of a step; nil where none are asked for.
func (w *worker) previews(ctx context.Context, s stage.Step) *previews {
	i := slices.IndexFunc(w.steps, func(viewer stage.Step) bool {
		return slices.ContainsFunc(s.Turn.Gives, func(p stage.Port) bool { return takes(viewer.Turn, p.Name) }) &&
			slices.ContainsFunc(viewer.Turn.Gives, func(p stage.Port) bool { return strings.HasPrefix(p.Media, "image/") })
	})
	if w.job.Spec.PreviewEveryNSteps == 0 {
		return nil
	}
	viewer := s
	if i >= 0 {
		viewer.Turn = w.steps[i].Turn
	}
	ctx, stop := context.WithCancel(ctx)
	p := &previews{newest: make(chan preview, 1), stop: stop}
	p.done.Go(func() {
		warned := false
		for {
			select {
			case <-ctx.Done():
				return
			case v := <-p.newest:
				why := ""
				if file := imageOf(v.estimate); file != nil {
					why = w.show(s, v, file)
				} else if i >= 0 {
					why = w.showPreview(ctx, viewer, v)
				}
				if why != "" && !warned && ctx.Err() == nil {
					warned = true
					w.emit(Warning{Code: PreviewSkipped, Message: why})
				}
			}
		}
	})
	return p
}

// offer replaces the preview that waits. It is called from one goroutine.
func (p *previews) offer(step int, estimate stage.Values) {
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

// showPreview makes an image of one estimate and emits it, or tells why not. s is the step that would make the image.
func (w *worker) showPreview(ctx context.Context, s stage.Step, v preview) (why string) {
	r := w.request(s.Turn)
	held, ok := w.Keeper.TryAcquire(ctx, r)
	if !ok {
		return fmt.Sprintf("the %v is busy or does not fit into memory beside the denoiser", s.Turn.Kind)
	}
	err := errPanic
	defer func() { w.release(ctx, held, err) }()
	options := w.job.Spec.Options.Of(s.Turn.Options)
	if _, ok := options["format"]; ok {
		options["format"] = stage.TextOption(stage.PNG)
	}
	for _, x := range v.estimate {
		s.Unit = max(s.Unit, x.Unit)
	}
	values := slices.DeleteFunc(w.taken(s), func(x stage.Value) bool { return v.estimate.Has(x.Name) || x.Name == parameters })
	for _, x := range v.estimate {
		if takes(s.Turn, x.Name) {
			values = append(values, x)
		}
	}
	result, err := w.Fleet.Stage(held.Stage).Work(ctx, stage.WorkRequest{
		Turn: s.Turn.Name, Components: r.Need.Components, Options: options, Values: values, Seed: w.job.Spec.seed(s.Image),
	}, stage.Observer{})
	if err != nil {
		return fmt.Sprintf("the %v failed: %v", s.Turn.Kind, err)
	}
	return w.show(s, v, imageOf(result.Values))
}

// imageOf is the file among values, nil if there is none.
func imageOf(values stage.Values) *stage.File {
	for _, v := range values {
		if v.File != nil {
			return v.File
		}
	}
	return nil
}

// show emits a file, which may be nil, as a preview, or tells why not.
func (w *worker) show(s stage.Step, v preview, file *stage.File) (why string) {
	switch {
	case file == nil:
	case len(file.Data) > MaxPreviewBytes:
		return fmt.Sprintf("it has %s, more than %s", stage.Size(int64(len(file.Data))), stage.Size(MaxPreviewBytes))
	default:
		w.emit(Preview{Image: s.Image, Unit: s.Unit, Step: v.step, File: *file})
	}
	return ""
}
