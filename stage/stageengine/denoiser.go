package stageengine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// The bounds of a denoising.
const (
	maxGuidanceScale = 100
	maxTokens        = 4096
	maxBatch         = 16
)

// progressEvery is how often progress is told at most, but for the last: as often as a bar is worth redrawing. Each
// message wakes three processes that share the processors with the work (measured: at every step of 27 ms they took
// 3 % of its time).
const progressEvery = 100 * time.Millisecond

// Denoiser is the second stage: conditioning to a latent.
type Denoiser struct {
	*shelf[*modeldir.Denoiser]
}

// NewDenoiser declares the U-Net of every model of the library; none is loaded.
func NewDenoiser(o Options) *Denoiser {
	return &Denoiser{newShelf(o, stage.KindDenoiser, (*modeldir.Dir).Denoiser,
		func(dir *modeldir.Dir, _ *modeldir.Denoiser, b *book[*modeldir.Denoiser]) error {
			data, err := dir.SchedulerConfig()
			if err != nil {
				return err
			}
			schedule, err := sampler.ParseConfig(data, dir.Scheduler())
			if err != nil {
				return config.InFile(err, filepath.Join(dir.Path(), "scheduler", "scheduler_config.json"))
			}
			b.schedule, b.tokens = schedule, dir.Tokens
			c := &b.component
			c.ContextDim, c.LatentChannels, c.LatentMultiple = dir.UNet.ContextDim, dir.UNet.InChannels, dir.UNet.SizeMultiple()
			c.LatentDefaultHeight, c.LatentDefaultWidth = dir.TrainedSize()
			c.Samplers, c.DefaultSampler = schedule.Samplers(), schedule.Sampler()
			c.Warnings = slices.Concat(c.Warnings, modeldir.IgnoredKeys("scheduler/scheduler_config.json", schedule.Unknown()))
			if err := schedule.Problem(); err != nil {
				c.SamplerProblem = err.Problem()
				c.Warnings = append(c.Warnings, "scheduler: "+c.SamplerProblem+", requests have to name another sampler")
			}
			return nil
		})}
}

// Plan implements stage.Resident.
func (d *Denoiser) Plan(_ context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	tape, err := d.planned(req)
	if err != nil {
		return stage.Footprint{}, err
	}
	return d.footprint(req.Model, tape, req.LimitBytes)
}

// planned is the tape of a request.
func (d *Denoiser) planned(req stage.PlanRequest) (*device.Tape, error) {
	b, err := d.find(req.Model)
	if err != nil {
		return nil, err
	}
	if req.Batch < 1 || req.Batch > maxBatch {
		return nil, stage.Invalid(stage.InvalidField, "batch", req.Batch, fmt.Sprintf("1 to %d latents", maxBatch))
	}
	return d.tape(b, req.Batch, req.LatentHeight, req.LatentWidth, b.tokens)
}

func (d *Denoiser) tape(b *book[*modeldir.Denoiser], batch, h, w, tokens int) (*device.Tape, error) {
	if err := checkSides(h, w, b.component.LatentMultiple); err != nil {
		return nil, err
	}
	tape, err := b.network().Tape(batch, h, w, tokens)
	if err != nil {
		return nil, d.fault(err)
	}
	return tape, nil
}

// Denoise implements stage.Denoiser.
func (d *Denoiser) Denoise(ctx context.Context, req stage.DenoiseRequest, observer stage.DenoiseObserver) (stage.Latent, error) {
	b, done, err := d.use(ctx, req.Model)
	if err != nil {
		return stage.Latent{}, err
	}
	defer done()
	states, err := d.conditioning(b, req)
	if err != nil {
		return stage.Latent{}, err
	}
	batch, tokens := req.Conditioning.States.Shape[0], req.Conditioning.States.Shape[1]
	tape, err := d.tape(b, batch, req.LatentHeight, req.LatentWidth, tokens)
	if err != nil {
		return stage.Latent{}, err
	}
	steps, err := sampled(b, req)
	if err != nil {
		return stage.Latent{}, err
	}
	state, err := d.start(b, req, steps)
	if err != nil {
		return stage.Latent{}, err
	}
	run, err := d.Device.NewRun(tape, b.weights, device.RunOptions{})
	if err != nil {
		return stage.Latent{}, d.runError(err, b, 0)
	}
	defer run.Free()
	if err := run.Write(modeldir.InputContext, states); err != nil {
		return stage.Latent{}, d.runError(err, b, run.Bytes())
	}
	if observer.Ready != nil {
		observer.Ready(steps.Evaluations(), steps.Name())
	}
	p, told := newPredictor(run, b.network(), req, batch), time.Time{}
	noise := sampler.NewSource(req.Seed)
	for i := state.Step; i < steps.Evaluations(); i++ {
		steps.ModelInput(state, p.input)
		if err := p.predict(ctx, steps.Timestep(i)); err != nil {
			return stage.Latent{}, d.runError(err, b, run.Bytes())
		}
		before := state
		state = steps.Step(state, p.prediction, noise.Draw)
		if !finite(p.prediction) || !finite(state.Latents) { // a sampler that clips makes a number of infinity
			return stage.Latent{}, d.notFinite(b, fmt.Sprintf("latents after evaluation %d", i+1))
		}
		if now := time.Now(); observer.Progress != nil && (now.Sub(told) >= progressEvery || state.Step == steps.Evaluations()) {
			observer.Progress(state.Step, steps.Evaluations())
			told = now
		}
		report(b, req, observer, steps, before, state, p.prediction)
	}
	return latent(b, req, state.Latents), nil
}

// report shows the observer the tensors that an evaluation led to, as often as the request asks for.
func report(b *book[*modeldir.Denoiser], req stage.DenoiseRequest, o stage.DenoiseObserver, steps *sampler.Sampler, before, state sampler.State, prediction []float32) {
	done := state.Step
	if done == steps.Evaluations() {
		return
	}
	if n := req.PreviewEveryNSteps; n > 0 && done%n == 0 && o.Preview != nil {
		estimate := make([]float32, len(prediction))
		steps.Denoised(before, prediction, estimate)
		o.Preview(done, latent(b, req, estimate))
	}
	if n := req.CheckpointEveryNSteps; n > 0 && done%n == 0 && o.Checkpoint != nil {
		c := stage.Checkpoint{Step: done}
		for _, a := range state.Tensors() {
			c.Tensors = append(c.Tensors, stage.NamedTensor{Name: a.Name, Tensor: tensor.FromF32(a.Data, len(a.Data))})
		}
		o.Checkpoint(c)
	}
}

// conditioning checks what needs no schedule of a request, and widens what it is conditioned on.
func (d *Denoiser) conditioning(b *book[*modeldir.Denoiser], req stage.DenoiseRequest) ([]float32, error) {
	for field, n := range map[string]int{"preview_every_n_steps": req.PreviewEveryNSteps, "checkpoint_every_n_steps": req.CheckpointEveryNSteps} {
		if n < 0 {
			return nil, stage.Invalid(stage.InvalidField, field, n, "a number of steps, or 0 for none")
		}
	}
	g := float64(req.GuidanceScale)
	if math.IsNaN(g) || g < 0 || g > maxGuidanceScale {
		return nil, stage.Invalid(stage.InvalidField, "guidance_scale", req.GuidanceScale, fmt.Sprintf("a number from 0 to %d", maxGuidanceScale))
	}
	want := 1
	if g > 1 {
		want = 2
	}
	s := req.Conditioning.States
	if len(s.Shape) != 3 || s.Shape[0] != want || s.Shape[1] < 1 || s.Shape[1] > maxTokens || s.Shape[2] != b.component.ContextDim {
		return nil, stage.Invalid(stage.TensorInvalid, "hidden_states", s.Shape, fmt.Sprintf("[%d, tokens, %d]", want, b.component.ContextDim))
	}
	v, err := s.Float32s()
	if err != nil {
		return nil, stage.Invalid(stage.TensorInvalid, "hidden_states", err, "F32, F16 or BF16 of the size its shape needs")
	}
	if !finite(v) {
		return nil, stage.Invalid(stage.TensorInvalid, "hidden_states", "NaN or infinity", "finite values")
	}
	return v, nil
}

// sampled makes the step machine a request asks for.
func sampled(b *book[*modeldir.Denoiser], req stage.DenoiseRequest) (*sampler.Sampler, error) {
	s, err := sampler.New(req.Sampler, b.schedule, req.Steps)
	var (
		own     *sampler.OwnError
		unknown *sampler.UnknownError
		steps   *sampler.StepsError
	)
	switch {
	case errors.As(err, &own):
		return nil, stage.NoDefaultSampler(own.Known, own.Problem())
	case errors.As(err, &steps):
		return nil, stage.Invalid(stage.InvalidField, "steps", req.Steps, fmt.Sprintf("%d to %d with sampler %s", steps.Min, steps.Max, steps.Sampler))
	case errors.As(err, &unknown):
		return nil, stage.Invalid(stage.SamplerUnsupported, "sampler", req.Sampler, "one of "+strings.Join(unknown.Known, ", "))
	case err != nil:
		return nil, stage.Invalid(stage.SamplerUnsupported, "sampler", req.Sampler, "another sampler or number of steps: "+err.Error())
	}
	return s, nil
}

// start is the state before the first evaluation, or the checkpoint's.
func (d *Denoiser) start(b *book[*modeldir.Denoiser], req stage.DenoiseRequest, steps *sampler.Sampler) (sampler.State, error) {
	n := b.component.LatentChannels * req.LatentHeight * req.LatentWidth
	if req.Resume == nil {
		return steps.Start(sampler.Noise(req.Seed, 0, n)), nil
	}
	var arrays []sampler.NamedArray
	for _, t := range req.Resume.Tensors {
		v, err := t.Float32s()
		if err != nil || !finite(v) {
			return sampler.State{}, stage.Invalid(stage.TensorInvalid, t.Name, t.Shape, "finite F32 values")
		}
		arrays = append(arrays, sampler.NamedArray{Name: t.Name, Data: v})
	}
	state, err := steps.Restore(req.Resume.Step, arrays)
	if err == nil && len(state.Latents) != n {
		err = fmt.Errorf("%d latents", len(state.Latents))
	}
	if err != nil {
		return sampler.State{}, stage.Invalid(stage.TensorInvalid, "checkpoint", err, fmt.Sprintf("the state of %s with %d latents", steps.Name(), n))
	}
	return state, nil
}

// latent wraps values, channels first, as the wire has them.
func latent(b *book[*modeldir.Denoiser], req stage.DenoiseRequest, v []float32) stage.Latent {
	return stage.Latent{Tensor: tensor.FromF32(v, 1, b.component.LatentChannels, req.LatentHeight, req.LatentWidth)}
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

func newPredictor(run device.Run, net *modeldir.Denoiser, req stage.DenoiseRequest, batch int) *predictor {
	p := &predictor{run: run, net: net, batch: batch, guidance: req.GuidanceScale, channels: net.Config.InChannels, pixels: req.LatentHeight * req.LatentWidth}
	n := p.channels * p.pixels
	p.input, p.prediction, p.last = make([]float32, n), make([]float32, n), make([]float32, batch*n)
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
	if err := first(
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

func finite(v []float32) bool {
	for _, x := range v {
		if x-x != 0 { // NaN or infinity
			return false
		}
	}
	return true
}
