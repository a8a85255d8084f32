package sd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// progressEvery is how often progress is told at most, but for the last: as often as a bar is worth redrawing. Each
// message wakes three processes that share the processors with the work (measured: at every step of 27 ms they took
// 3 % of its time).
const progressEvery = 100 * time.Millisecond

// maxTokens bounds the states that a request may bring.
const maxTokens = 4096

func (m *model) denoiseRuns(nets []family.Network, o stage.Options) ([]family.Run, error) {
	return one(m.unetRun(nets[0], o, m.Tokens))
}

func (m *model) unetRun(net family.Network, o stage.Options, tokens int) (family.Run, error) {
	h, w := m.latentSize(o)
	tape, err := net.(*modeldir.Denoiser).Tape(family.Batch(o), h, w, tokens)
	return family.Run{Tape: tape}, err
}

// denoise leads noise, or a picture with noise, to a latent.
func (m *model) denoise(ctx context.Context, s family.Session, req stage.WorkRequest, o stage.Observer) (stage.Result, error) {
	d := &denoising{model: m, req: req}
	states, tokens, err := d.conditioning()
	if err != nil {
		return stage.Result{}, err
	}
	if err := d.open(); err != nil {
		return stage.Result{}, err
	}
	state, err := d.start()
	if err != nil {
		return stage.Result{}, err
	}
	r, err := m.unetRun(s.Network(0), req.Options, tokens)
	if err != nil {
		return stage.Result{}, err
	}
	run, err := s.Start(r)
	if err != nil {
		return stage.Result{}, err
	}
	defer run.Free()
	if err := run.Write(modeldir.InputContext, states); err != nil {
		return stage.Result{}, s.Failed(r, run, err)
	}
	all := d.steps.Evaluations() - d.steps.First()
	if o.Ready != nil {
		o.Ready(all)
	}
	p, told := newPredictor(run, s.Network(0).(*modeldir.Denoiser), req.Options, len(d.noise)), time.Time{}
	draw := d.draw
	for i := state.Step; i < d.steps.Evaluations(); i++ {
		d.steps.ModelInput(state, p.input)
		if err := p.predict(ctx, d.steps.Timestep(i)); err != nil {
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
			d.report(o, done, before, state, p.prediction)
		}
	}
	return stage.Result{Values: stage.Values{d.latents(state.Latents)}}, nil
}

// denoising is one request.
type denoising struct {
	*model
	req     stage.WorkRequest
	steps   *sampler.Sampler
	source  *sampler.Source
	draws   int       // of noise before those of the sampler
	noise   []float32 // of the start
	picture []float32 // latents of the picture that is drawn from; nil without one
	mask    []float32 // by place, 1 where the picture is drawn anew; nil without one
}

// conditioning checks and widens the states of the prompts.
func (d *denoising) conditioning() (states []float32, tokens int, err error) {
	v, _ := d.req.Values.Get(valueStates)
	shape, want := v.Tensor.Shape, family.Batch(d.req.Options)
	if shape[0] != want || shape[1] > maxTokens {
		return nil, 0, stage.Invalid(stage.TensorInvalid, v.Name, shape, fmt.Sprintf("[%d, at most %d tokens, %d]", want, maxTokens, d.Text.HiddenSize))
	}
	states, err = family.Floats(v)
	return states, shape[1], err
}

// open makes the step machine that the request asks for, the noise and what it has of a picture.
func (d *denoising) open() error {
	o := d.req.Options
	name, steps := o[optionSampler].Text, int(o[optionSteps].Int)
	taken := steps
	moments, drawn := d.req.Values.Get(valueMoments)
	if drawn {
		if taken = int(float64(steps) * o[optionStrength].Float); taken < 1 {
			return stage.Invalid(stage.InvalidField, optionStrength, o[optionStrength], fmt.Sprintf("at least %g, which is one step of %d", 1/float64(steps), steps))
		}
	} else if d.req.Values.Has(valueMaskLatents) {
		return stage.Invalid(stage.InvalidField, valueMaskLatents, "a value", "a mask only beside "+valueMoments)
	}
	var err error
	if d.steps, err = sampler.NewPart(name, d.schedule, steps, taken); err != nil {
		var wrong *sampler.StepsError
		if errors.As(err, &wrong) {
			return stage.Invalid(stage.InvalidField, optionSteps, steps, fmt.Sprintf("%d to %d with sampler %s", wrong.Min, wrong.Max, wrong.Sampler))
		}
		return stage.Invalid(stage.SamplerUnsupported, optionSampler, name, "another sampler or number of steps: "+err.Error())
	}
	h, w := d.latentSize(o)
	d.source, d.noise = sampler.NewSource(d.req.Seed), make([]float32, d.VAE.LatentChannels*h*w)
	if drawn {
		err = d.openPicture(moments)
	}
	d.source.Draw(d.draws, d.noise)
	d.draws++
	if d.mask != nil {
		d.draws++ // the reference's, for a picture without what is masked, which this U-Net does not see
	}
	return err
}

// draw is the noise of a step: behind the draws of the start come those of the steps that are taken.
func (d *denoising) draw(draw int, dst []float32) { d.source.Draw(d.draws+draw-1-d.steps.First(), dst) }

// start is the state before the first evaluation, or the checkpoint's.
func (d *denoising) start() (sampler.State, error) {
	if d.req.Resume != nil {
		return d.resume(*d.req.Resume)
	}
	if d.picture == nil || d.mask != nil && d.steps.First() == 0 && d.req.Options[optionStrength].Float == 1 {
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
func (d *denoising) report(o stage.Observer, done int, before, state sampler.State, prediction []float32) {
	if n := d.req.PreviewEveryNSteps; n > 0 && done%n == 0 && o.Preview != nil {
		estimate := make([]float32, len(prediction))
		d.steps.Denoised(before, prediction, estimate)
		if d.mask != nil {
			estimate = d.keep(d.steps.Evaluations(), estimate)
		}
		o.Preview(done, stage.Values{d.latents(estimate)})
	}
	if n := d.req.CheckpointEveryNSteps; n > 0 && done%n == 0 && o.Checkpoint != nil {
		c := stage.Checkpoint{Step: done}
		for _, a := range state.Tensors() {
			c.Values = append(c.Values, family.Tensor(a.Name, a.Data, len(a.Data)))
		}
		o.Checkpoint(c)
	}
}

// latents wraps values, channels first, as the wire has them.
func (d *denoising) latents(v []float32) stage.Value {
	h, w := d.latentSize(d.req.Options)
	return family.Tensor(valueLatents, v, 1, d.VAE.LatentChannels, h, w)
}

// predictor evaluates the network for one image, guided or not. Samplers work channels first, the
// order of torch's noise; the network channels last.
type predictor struct {
	run              device.Run
	net              *modeldir.Denoiser
	batch            int
	guidance         float32
	channels, pixels int
	input            []float32 // [C, h, w]
	prediction       []float32 // [C, h, w]
	last             []float32 // [batch, h, w, C]
}

func newPredictor(run device.Run, net *modeldir.Denoiser, o stage.Options, n int) *predictor {
	p := &predictor{run: run, net: net, batch: family.Batch(o), guidance: float32(o[family.Guidance].Float), channels: net.Config.InChannels}
	p.pixels = n / p.channels
	p.input, p.prediction, p.last = make([]float32, n), make([]float32, n), make([]float32, p.batch*n)
	return p
}

// predict evaluates input at a timestep into prediction. Two images are [negative, positive], and
// the prediction is negative + guidance_scale * (positive - negative): classifier-free guidance, Ho
// and Salimans 2022, arXiv 2207.12598.
func (p *predictor) predict(ctx context.Context, timestep float64) error {
	n := len(p.input)
	for i := range p.batch {
		nn.ToChannelsLast(p.last[i*n:][:n], p.input, 1, p.channels, p.pixels)
	}
	if err := family.First(
		func() error { return p.run.Write(modeldir.InputLatents, p.last) },
		func() error { return p.run.Write(modeldir.InputTime, p.net.Config.TimeInput(timestep)) },
		func() error { return p.run.Execute(ctx) },
		func() error { return p.run.Read(modeldir.OutputPrediction, p.last) },
	); err != nil {
		return err
	}
	if p.batch == 2 {
		negative, positive := p.last[:n], p.last[n:]
		for i, v := range negative {
			negative[i] = v + p.guidance*(positive[i]-v)
		}
	}
	nn.ToChannelsFirst(p.prediction, p.last[:n], 1, p.channels, p.pixels)
	return nil
}
