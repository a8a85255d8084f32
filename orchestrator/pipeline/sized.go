package pipeline

import (
	"context"
	"maps"
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// Values may tell what a turn takes: where a size of a value has the name of an Int option that the turn's memory depends on, the
// turn is planned anew for the value as it is, such as for a prompt that is longer than was planned for.

// sized is the job's spec as a turn takes it, with options that its values tell. mu is held.
func (w *worker) sized(t stage.Turn) Spec {
	spec := w.job.Spec
	shape := spec.Recipe.ShapeNames(t)
	for _, p := range t.Takes {
		for i, name := range p.Shape {
			o, is := spec.Recipe.Option(name)
			at := slices.IndexFunc(w.job.Values, func(v Value) bool { return v.Name == p.Name })
			if !is || o.Type != stage.Int || !slices.Contains(shape, name) || at < 0 {
				continue
			}
			size := stage.IntOption(int64(w.job.Values[at].Tensor.Shape[i]))
			if spec.Options[name] != size {
				spec.Options = maps.Clone(spec.Options)
				spec.Options[name] = size
			}
		}
	}
	return spec
}

// measured gives the options that a turn is taken with, and plans it anew where its values tell others than it was planned with. The error is that
// of Plan.
func (w *worker) measured(ctx context.Context, t stage.Turn) (stage.Options, error) {
	w.job.mu.Lock()
	spec := w.sized(t)
	shape := spec.Recipe.Shape(t, spec.Options)
	planned, again := w.shapes[t.Name]
	if !again {
		planned = spec.Recipe.Shape(t, w.job.Spec.Options)
	}
	w.job.mu.Unlock()
	if maps.Equal(planned, shape) {
		return spec.Options, nil
	}
	footprints, device, err := w.planned(ctx, w.model, spec, t, nil)
	if err != nil {
		return nil, w.smallest(ctx, w.model, spec, device, err)
	}
	w.job.mu.Lock()
	w.plan.Turns[t.Name], w.shapes[t.Name] = footprints, shape
	w.job.mu.Unlock()
	w.announce()
	return spec.Options, nil
}
