package stagetest

import (
	"context"
	"fmt"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// trajectory is the state of denoising: latents drift to the mean of the conditioning with momentum, and get new noise at
// every evaluation. Of latents in units one follows the other.
type trajectory struct {
	*call
	latents, momentum []float32
	target            float32
	evaluations       int // of a unit
	units             int // 0 if latents come whole
	done              int
	finished          stage.Values
}

func (c *call) denoise(ctx context.Context) (stage.Result, error) {
	t := &trajectory{call: c, units: int(c.Options["frames"].Int)}
	for _, prepare := range []func() error{t.check, t.aim, t.resume} {
		if err := prepare(); err != nil {
			return stage.Result{}, err
		}
	}
	return t.run(ctx)
}

func (t *trajectory) check() error {
	for name, n := range map[string]int{"preview_every_n_steps": t.PreviewEveryNSteps, "checkpoint_every_n_steps": t.CheckpointEveryNSteps} {
		if n < 0 {
			return stage.Invalid(stage.InvalidField, name, n, "0 or more")
		}
	}
	t.evaluations = int(t.Options["steps"].Int)
	if moments, ok := t.Values.Get("moments"); ok {
		if s := moments.Tensor.Shape; s[2] != t.height || s[3] != t.width {
			return stage.Errorf(stage.TensorInvalid, "moments: expected [1, %d, %d, %d], got %v", channels, t.height, t.width, s)
		}
		t.evaluations = max(1, int(float64(t.evaluations)*t.Options["strength"].Float))
	}
	if t.Options["sampler"].Text == heun {
		t.evaluations = 2*t.evaluations - 1
	}
	return nil
}

// aim finds where latents drift to.
func (t *trajectory) aim() error {
	v, _ := t.Values.Get("hidden_states")
	states, err := v.Tensor.Float32s()
	weight, prompts := float32(t.Options["guidance_scale"].Float), 1
	if weight > 1 {
		prompts = 2
	}
	if err != nil || v.Tensor.Shape[0] != prompts {
		return stage.Errorf(stage.TensorInvalid, "hidden_states: expected [%d, %d, %d], got %v", prompts, maxTokens, contextDim, v.Tensor.Shape)
	}
	for i, x := range states {
		if prompts == 2 && i < len(states)/2 {
			t.target -= (weight - 1) * x
		} else {
			t.target += max(weight, 1) * x
		}
	}
	if v, ok := t.Values.Get("control"); ok {
		t.target += float32(len(v.File.Data))
	}
	t.target += t.style(unetStyle)
	return nil
}

// start makes the latents of a unit at its beginning.
func (t *trajectory) start() {
	n := channels * t.height * t.width
	t.latents, t.momentum = make([]float32, n), make([]float32, n)
	for i := range t.latents {
		t.latents[i] = noise(t.Seed, t.done, i)
	}
	if moments, ok := t.Values.Get("moments"); ok {
		strength, clean := float32(t.Options["strength"].Float), float32s(moments.Tensor)
		for i := range t.latents {
			t.latents[i] = strength*t.latents[i] + (1-strength)*clean[i]
		}
	}
}

func float32s(t tensor.Tensor) []float32 {
	v, err := t.Float32s()
	if err != nil { // it has been accepted
		panic(err)
	}
	return v
}

// total is the evaluations of all units.
func (t *trajectory) total() int { return t.evaluations * max(1, t.units) }

// resume takes up a checkpoint, if there is one: latents, momentum, and the units that are finished.
func (t *trajectory) resume() error {
	c := t.Resume
	if c == nil {
		return nil
	}
	if c.Step < 1 || c.Step >= t.total() {
		return stage.Invalid(stage.InvalidField, "resume_step", c.Step, fmt.Sprintf("1 to %d", t.total()-1))
	}
	if want := 2 + c.Step/t.evaluations*min(1, t.units); len(c.Values) != want || c.Values[0].Name != "latents" || c.Values[1].Name != "momentum" {
		return stage.Errorf(stage.TensorInvalid, "checkpoint: expected latents and momentum, got %d values", len(c.Values))
	}
	for _, v := range c.Values {
		if x, err := v.Tensor.Float32s(); err != nil || len(x) != channels*t.height*t.width {
			return stage.Errorf(stage.TensorInvalid, "checkpoint: %s has shape %v", v.Name, v.Tensor.Shape)
		}
	}
	t.done, t.finished = c.Step, c.Values[2:]
	t.latents, t.momentum = float32s(c.Values[0].Tensor), float32s(c.Values[1].Tensor)
	return nil
}

func (t *trajectory) run(ctx context.Context) (stage.Result, error) {
	if t.observer.Ready != nil {
		t.observer.Ready(t.total())
	}
	for _, v := range t.finished {
		t.unit(v)
	}
	for t.done < t.total() {
		if t.done%t.evaluations == 0 {
			t.start()
		}
		if err := t.script.at(ctx, OpDenoise, t.done+1); err != nil {
			return stage.Result{}, err
		}
		t.done++
		for i := range t.latents {
			t.momentum[i] = t.momentum[i]/2 + (t.target-t.latents[i])/4
			t.latents[i] += t.momentum[i] + noise(t.Seed, t.done, i)/8
		}
		if t.units > 0 && t.done%t.evaluations == 0 {
			v := t.value(len(t.finished))
			t.finished = append(t.finished, v)
			t.unit(v)
		}
		t.tell()
	}
	switch {
	case t.units == 0:
		return stage.Result{Values: stage.Values{t.value(0)}}, nil
	case t.observer.Unit != nil:
		return stage.Result{}, nil
	}
	return stage.Result{Values: t.finished}, nil
}

func (t *trajectory) unit(v stage.Value) {
	if t.observer.Unit != nil {
		t.observer.Unit(v)
	}
}

func (t *trajectory) tell() {
	if t.observer.Progress != nil {
		t.observer.Progress(t.done, t.total())
	}
	unit := max(0, min((t.done-1)/t.evaluations, t.units-1))
	if n := t.PreviewEveryNSteps; n > 0 && t.done%n == 0 && t.observer.Preview != nil {
		t.observer.Preview(t.done, stage.Values{t.value(unit)})
	}
	if n := t.CheckpointEveryNSteps; n > 0 && t.done%n == 0 && t.done < t.total() && t.observer.Checkpoint != nil {
		state := stage.Values{t.value(unit), {Name: "momentum", Tensor: t.tensor(t.momentum)}}
		t.observer.Checkpoint(stage.Checkpoint{Step: t.done, Values: append(state, t.finished...)})
	}
}

func (t *trajectory) value(unit int) stage.Value {
	return stage.Value{Name: "latents", Tensor: t.tensor(t.latents), Unit: unit, Units: t.units}
}

func (t *trajectory) tensor(values []float32) tensor.Tensor {
	return tensor.FromF32(values, 1, channels, t.height, t.width)
}
