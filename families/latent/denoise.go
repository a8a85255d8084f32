package latent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// progressEvery is how often progress is told at most, but for the last: as often as a bar is worth redrawing. Each
// message wakes three processes that share the processors with the work (measured: at every step of 27 ms they took
// 3 % of its time).
const progressEvery = 100 * time.Millisecond

// denoiseRuns are those of adapters' beginnings, one after another, then the ControlNets, and the U-Net beside them.
func (m *Model) denoiseRuns(nets []family.Network, o stage.Options) (runs []family.Run, err error) {
	a, err := m.adapters(nets, o)
	if err != nil {
		return nil, err
	}
	tokens := int(o[OptionTokens].Int)
	if runs, err = a.runs(o, tokens); err != nil {
		return nil, err
	}
	run, err := a.unetRun(nets[0], o, tokens)
	if err != nil {
		return nil, err
	}
	tiny, there, err := m.tinyRun(nets, o)
	if err != nil || !there {
		return append(runs, run), err
	}
	run.Held = true
	return append(runs, run, tiny), nil
}

// maxBatch bounds how many images one seed draws the noise of.
const maxBatch = 64

// denoise leads noise, or a picture with noise, to a latent.
func (m *Model) denoise(ctx context.Context, s family.Session, req stage.WorkRequest, o stage.Observer) (stage.Result, error) {
	d := &denoising{Model: m, req: req}
	return d.run(ctx, s, o)
}

// run takes the steps.
func (d *denoising) run(ctx context.Context, s family.Session, o stage.Observer) (stage.Result, error) {
	if err := d.condition(); err != nil {
		return stage.Result{}, err
	}
	open := d.open
	if d.refines {
		open = d.openRefine
	}
	if err := open(); err != nil {
		return stage.Result{}, err
	}
	state, err := d.start()
	if err != nil {
		return stage.Result{}, err
	}
	a, err := d.adapters(Networks(s, d.req), d.req.Options)
	if err != nil {
		return stage.Result{}, err
	}
	image, err := d.imageInputs(ctx, s, a.image)
	if err != nil {
		return stage.Result{}, err
	}
	controls, err := d.openControls(ctx, s, a.controls)
	defer controls.close()
	if err != nil {
		return stage.Result{}, err
	}
	r, err := a.unetRun(s.Network(0), d.req.Options, d.tokens)
	if err != nil {
		return stage.Result{}, err
	}
	run, err := s.Start(r)
	if err != nil {
		return stage.Result{}, err
	}
	defer run.Free()
	if d.tiny, err = d.openTiny(s); err != nil {
		return stage.Result{}, err
	}
	if d.tiny != nil {
		defer d.tiny.run.Free()
	}
	if err := a.loras.write(run); err != nil {
		return stage.Result{}, s.Failed(r, run, err)
	}
	for _, in := range image {
		if err := run.Write(in.Name, in.Values); err != nil {
			return stage.Result{}, s.Failed(r, run, err)
		}
	}
	all := d.last - d.steps.First()
	if o.Ready != nil {
		o.Ready(all)
	}
	p, told := newPredictor(run, s.Network(0).(*modeldir.Denoiser), d.req.Options, len(d.noise), d.beside), time.Time{}
	draw := d.draw
	for i := state.Step; i < d.last; i++ {
		inputs, err := d.conditions(i - d.begun())
		if err != nil {
			return stage.Result{}, err
		}
		for _, in := range inputs {
			if err := run.Write(in.Name, in.Values); err != nil {
				return stage.Result{}, s.Failed(r, run, err)
			}
		}
		if err := controls.condition(inputs); err != nil {
			return stage.Result{}, err
		}
		d.steps.ModelInput(state, p.input)
		first, timestep := d.steps.First(), d.steps.Timestep(i)
		if err := controls.lead(ctx, run, i-first, d.steps.Evaluations()-first, p.input[:len(d.noise)], p.time(timestep)); err != nil {
			return stage.Result{}, err
		}
		if err := p.predict(ctx, timestep); err != nil {
			return stage.Result{}, s.Failed(r, run, err)
		}
		before := state
		state = d.steps.Step(state, p.prediction, draw)
		if d.mask != nil {
			state = state.With(d.keep(i+1, state.Latents))
		}
		done := state.Step - d.steps.First()
		if !family.Finite(p.prediction) || !family.Finite(state.Latents) { // a sampler that clips makes a number of infinity
			return stage.Result{}, s.NotFinite(0, fmt.Sprintf("latents after evaluation %d", done))
		}
		if now := time.Now(); o.Progress != nil && (now.Sub(told) >= progressEvery || done == all) {
			o.Progress(done, all)
			told = now
		}
		if done < all {
			if err := d.report(ctx, o, done, before, state, p.prediction); err != nil {
				return stage.Result{}, err
			}
		}
	}
	return stage.Result{Values: stage.Values{d.latents(state.Latents)}}, nil
}

// denoising is one request.
type denoising struct {
	*Model
	req     stage.WorkRequest
	refines bool // it goes on with latents of another model
	conditioning
	steps   *sampler.Sampler
	source  *sampler.Source
	last    int           // evaluations that are over when it ends, those before the first one among them
	draws   int           // of noise before those of the sampler
	noise   []float32     // of the start
	picture []float32     // latents of the picture that is drawn from; nil without one
	mask    []float32     // by place, 1 where the picture is drawn anew; nil without one
	tiny    *tinyPreviews // nil without a tiny autoencoder
	beside  []float32     // input channels of the U-Net behind the latents, [C, h, w]
}

// open makes the step machine that the request asks for, the noise and what it has of a picture.
func (d *denoising) open() error {
	o := d.req.Options
	name, steps := o[OptionSampler].Text, int(o[OptionSteps].Int)
	taken := steps
	moments, drawn := d.req.Values.Get(ValueMoments)
	if drawn {
		if taken = int(float64(steps) * o[OptionStrength].Float); taken < 1 {
			return stage.Invalid(stage.InvalidField, OptionStrength, o[OptionStrength], fmt.Sprintf("at least %g, which is one step of %d", 1/float64(steps), steps))
		}
	} else if d.req.Values.Has(ValueMaskLatents) {
		return stage.Invalid(stage.InvalidField, ValueMaskLatents, "a value", "a mask only beside "+ValueMoments)
	}
	var err error
	if d.steps, err = sampler.NewPart(name, d.Schedule.tuned(o), steps, taken); err != nil {
		return unsteppable(name, steps, err)
	}
	end, which := o[OptionDenoisingEnd].Float, OptionDenoisingEnd
	if share, named, err := refinerOf(o); err != nil {
		return err
	} else if named {
		if d.req.Values.Has(ValueMaskLatents) {
			return stage.Invalid(stage.InvalidField, Refiner, o[Refiner], "none beside a mask, which it would not keep to")
		}
		end, which = share, Refiner
	}
	if d.last = d.steps.Until(end); d.last <= d.steps.First() {
		return stage.Invalid(stage.InvalidField, which, o[which], "an end behind the first step")
	}
	if size, index := o[OptionBatchSize].Int, o[OptionBatchIndex].Int; index >= size {
		return stage.Invalid(stage.InvalidField, OptionBatchIndex, index, fmt.Sprintf("0 to %d, as there are images in the batch", size-1))
	} else if size > 1 && drawn {
		return stage.Invalid(stage.InvalidField, OptionBatchSize, size, "1 beside "+ValueInitImage)
	}
	h, w := d.latentSize(o)
	d.source, d.noise = sampler.NewSource(d.req.Seed), make([]float32, d.VAE.LatentChannels*h*w)
	if drawn {
		return d.openPicture(moments)
	}
	d.drawAt(d.draws, d.noise)
	d.draws++
	return nil
}

// unsteppable is the error of a sampler that cannot be made.
func unsteppable(name string, steps int, err error) error {
	var wrong *sampler.StepsError
	if errors.As(err, &wrong) {
		return stage.Invalid(stage.InvalidField, OptionSteps, steps, fmt.Sprintf("%d to %d with sampler %s", wrong.Min, wrong.Max, wrong.Sampler))
	}
	var tuning *sampler.TuningError
	if errors.As(err, &tuning) { // whose fields are called as options are
		return stage.Invalid(stage.InvalidField, tuning.Field, tuning.Got, fmt.Sprintf("with sampler %s %s", tuning.Sampler, tuning.Expected))
	}
	return stage.Invalid(stage.SamplerUnsupported, OptionSampler, name, "another sampler or number of steps: "+err.Error())
}

// begun is the evaluation that the steps of prompts are counted from: the first one, of the first of two models.
func (d *denoising) begun() int {
	if d.refines {
		return 0
	}
	return d.steps.First()
}

// draw is the noise of a step: behind the draws of the start come those of the steps that are taken.
func (d *denoising) draw(draw int, dst []float32) { d.drawAt(d.draws+draw-1-d.steps.First(), dst) }

// drawAt is a draw of the seed's: of the whole batch at once, of which the image has its part.
func (d *denoising) drawAt(draw int, dst []float32) {
	size, index := int(d.req.Options[OptionBatchSize].Int), int(d.req.Options[OptionBatchIndex].Int)
	if size == 1 {
		d.source.Draw(draw, dst)
		return
	}
	all := make([]float32, size*len(dst))
	d.source.Draw(draw, all)
	copy(dst, all[index*len(dst):])
}

// start is the state before the first evaluation, or the checkpoint's.
func (d *denoising) start() (sampler.State, error) {
	if d.req.Resume != nil {
		return d.resume(*d.req.Resume)
	}
	if d.refines {
		return d.steps.From(d.picture), nil
	}
	if d.picture == nil || d.mask != nil && d.steps.First() == 0 && d.req.Options[OptionStrength].Float == 1 {
		return d.steps.Start(d.noise), nil
	}
	latents := make([]float32, len(d.noise))
	d.steps.Noised(d.steps.First(), d.picture, d.noise, latents)
	return d.steps.From(latents), nil
}

func (d *denoising) resume(c stage.Checkpoint) (sampler.State, error) {
	var arrays []sampler.NamedArray
	for _, v := range c.Values {
		f, err := family.Floats(v)
		if err != nil {
			return sampler.State{}, err
		}
		arrays = append(arrays, sampler.NamedArray{Name: v.Name, Data: f})
	}
	state, err := d.steps.Restore(d.steps.First()+c.Step, arrays)
	if err == nil && len(state.Latents) != len(d.noise) {
		err = fmt.Errorf("%d latents", len(state.Latents))
	}
	if err != nil {
		return sampler.State{}, stage.Invalid(stage.TensorInvalid, "checkpoint", err, fmt.Sprintf("the state of %s with %d latents", d.steps.Name(), len(d.noise)))
	}
	return state, nil
}

// report shows the observer what an evaluation led to, as often as the request asks for.
func (d *denoising) report(ctx context.Context, o stage.Observer, done int, before, state sampler.State, prediction []float32) error {
	if n := d.req.PreviewEveryNSteps; n > 0 && done%n == 0 && o.Preview != nil {
		estimate := make([]float32, len(prediction))
		d.steps.Denoised(before, prediction, estimate)
		if d.mask != nil {
			estimate = d.keep(d.steps.Evaluations(), estimate)
		}
		shown, err := d.preview(ctx, estimate)
		if err != nil {
			return err
		}
		o.Preview(done, stage.Values{shown})
	}
	if n := d.req.CheckpointEveryNSteps; n > 0 && done%n == 0 && o.Checkpoint != nil {
		c := stage.Checkpoint{Step: done}
		for _, a := range state.Tensors() {
			c.Values = append(c.Values, family.Tensor(a.Name, a.Data, len(a.Data)))
		}
		o.Checkpoint(c)
	}
	return nil
}

// latents wraps values, channels first, as the wire has them.
func (d *denoising) latents(v []float32) stage.Value {
	h, w := d.latentSize(d.req.Options)
	return family.Tensor(ValueLatents, v, 1, d.VAE.LatentChannels, h, w)
}
