package stagetest

import (
	"context"
	"fmt"
	"math"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// Denoiser is a fake denoiser: latents drift to the mean of the conditioning with momentum, and
// get new noise at every evaluation.
type Denoiser struct{ *residency }

var _ stage.Denoiser = (*Denoiser)(nil)

// The samplers of the fake: heun makes two evaluations a step, but one in the last.
const (
	euler = "euler"
	heun  = "heun"
)

// NewDenoiser makes a fake with nothing resident; script may be nil.
func NewDenoiser(script *Script) *Denoiser {
	return &Denoiser{newResidency(stage.KindDenoiser, script, stage.Component{
		ContextDim: contextDim, LatentChannels: channels, LatentMultiple: multiple, LatentDefaultHeight: 8, LatentDefaultWidth: 8,
		Samplers: []string{euler, heun}, DefaultSampler: euler,
	})}
}

func latentBytes(height, width int) int64 { return int64(4 * channels * height * width) }

// Plan wants even sides.
func (d *Denoiser) Plan(ctx context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	f, err := d.plan(ctx, req, latentBytes(req.LatentHeight, req.LatentWidth))
	if err == nil {
		err = checkSize(req.LatentHeight, req.LatentWidth, multiple)
	}
	if err != nil {
		return stage.Footprint{}, err
	}
	return f, nil
}

// trajectory is the state of a run: its tensors are what a checkpoint holds.
type trajectory struct {
	latents, momentum []float32
	target            float32
}

func (d *Denoiser) check(req stage.DenoiseRequest) (evaluations int, sampler string, err error) {
	if err := checkSize(req.LatentHeight, req.LatentWidth, multiple); err != nil {
		return 0, "", err
	}
	if req.Steps < 1 || req.Steps > 1000 {
		return 0, "", stage.Invalid(stage.InvalidField, "steps", req.Steps, "1 to 1000")
	}
	if g := float64(req.GuidanceScale); math.IsNaN(g) || math.IsInf(g, 0) || g < 0 {
		return 0, "", stage.Invalid(stage.InvalidField, "guidance_scale", g, "0 or more")
	}
	if req.PreviewEveryNSteps < 0 {
		return 0, "", stage.Invalid(stage.InvalidField, "preview_every_n_steps", req.PreviewEveryNSteps, "0 or more")
	}
	if req.CheckpointEveryNSteps < 0 {
		return 0, "", stage.Invalid(stage.InvalidField, "checkpoint_every_n_steps", req.CheckpointEveryNSteps, "0 or more")
	}
	switch req.Sampler {
	case "", euler:
		return req.Steps, euler, nil
	case heun:
		return 2*req.Steps - 1, heun, nil
	}
	return 0, "", stage.Invalid(stage.SamplerUnsupported, "sampler", req.Sampler, "one of euler, heun")
}

// begun makes the state a run starts with.
func (d *Denoiser) begun(req stage.DenoiseRequest, evaluations int) (t trajectory, step int, err error) {
	states, err := req.Conditioning.States.Float32s()
	shape, prompts := req.Conditioning.States.Shape, 1
	if req.GuidanceScale > 1 {
		prompts = 2
	}
	if err != nil || len(shape) != 3 || shape[0] != prompts || shape[1] < 1 || shape[2] != contextDim {
		return t, 0, stage.Errorf(stage.TensorInvalid, "conditioning: expected [%d, tokens, %d], got %v", prompts, contextDim, shape)
	}
	weight := req.GuidanceScale
	for i, x := range states {
		if prompts == 2 && i < len(states)/2 {
			t.target -= (weight - 1) * x
		} else {
			t.target += max(weight, 1) * x
		}
	}
	n := channels * req.LatentHeight * req.LatentWidth
	if req.Resume == nil {
		t.latents, t.momentum = make([]float32, n), make([]float32, n)
		for i := range t.latents {
			t.latents[i] = noise(req.Seed, 0, i)
		}
		return t, 0, nil
	}
	c := req.Resume
	if c.Step < 1 || c.Step >= evaluations {
		return t, 0, stage.Invalid(stage.InvalidField, "resume_step", c.Step, fmt.Sprintf("1 to %d", evaluations-1))
	}
	if len(c.Tensors) != 2 || c.Tensors[0].Name != "latents" || c.Tensors[1].Name != "momentum" {
		return t, 0, stage.Errorf(stage.TensorInvalid, "checkpoint: expected latents and momentum, got %d tensors", len(c.Tensors))
	}
	for i, state := range []*[]float32{&t.latents, &t.momentum} {
		if *state, err = c.Tensors[i].Float32s(); err != nil || len(*state) != n {
			return t, 0, stage.Errorf(stage.TensorInvalid, "checkpoint: %s has shape %v", c.Tensors[i].Name, c.Tensors[i].Shape)
		}
	}
	return t, c.Step, nil
}

// Denoise runs the sampler.
func (d *Denoiser) Denoise(ctx context.Context, req stage.DenoiseRequest, observer stage.DenoiseObserver) (stage.Latent, error) {
	evaluations, sampler, err := d.check(req)
	if err != nil {
		return stage.Latent{}, err
	}
	t, done, err := d.begun(req, evaluations)
	if err != nil {
		return stage.Latent{}, err
	}
	end, err := d.begin(ctx, req.Model, latentBytes(req.LatentHeight, req.LatentWidth))
	if err != nil {
		return stage.Latent{}, err
	}
	defer end()
	if observer.Ready != nil {
		observer.Ready(evaluations, sampler)
	}
	for done < evaluations {
		if err := d.script.at(ctx, OpDenoise, done+1); err != nil {
			return stage.Latent{}, err
		}
		done++
		for i := range t.latents {
			t.momentum[i] = t.momentum[i]/2 + (t.target-t.latents[i])/4
			t.latents[i] += t.momentum[i] + noise(req.Seed, done, i)/8
		}
		t.tell(observer, req, done, evaluations)
	}
	return t.latent(req), nil
}

func (t *trajectory) tell(observer stage.DenoiseObserver, req stage.DenoiseRequest, done, evaluations int) {
	if observer.Progress != nil {
		observer.Progress(done, evaluations)
	}
	if n := req.PreviewEveryNSteps; n > 0 && done%n == 0 && observer.Preview != nil {
		observer.Preview(done, t.latent(req))
	}
	if n := req.CheckpointEveryNSteps; n > 0 && done%n == 0 && done < evaluations && observer.Checkpoint != nil {
		observer.Checkpoint(stage.Checkpoint{Step: done, Tensors: []stage.NamedTensor{
			{Name: "latents", Tensor: t.latent(req).Tensor},
			{Name: "momentum", Tensor: tensor.FromF32(t.momentum, 1, channels, req.LatentHeight, req.LatentWidth)},
		}})
	}
}

func (t *trajectory) latent(req stage.DenoiseRequest) stage.Latent {
	return stage.Latent{Tensor: tensor.FromF32(t.latents, 1, channels, req.LatentHeight, req.LatentWidth)}
}
