package stageengine

import (
	"context"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/families"
	"github.com/triptych-serving/triptych/stage"
)

// newStage is a stage of all families.
func newStage(kind stage.Kind, o Options) *Stage {
	o.Families = families.All()
	return New(kind, o)
}

// partOf is the component of a model that draws in a kind of stage.
func partOf(s *Stage, model string) string {
	return model + map[stage.Kind]string{stage.KindEncoder: "/text_encoder", stage.KindDenoiser: "/unet", stage.KindDecoder: "/vae.decoder"}[s.kind]
}

// factorOf is the pixels of a place of a model's latents.
func factorOf(s *Stage, model string) int {
	spec, _ := s.model(model).files.Recipes[0].Option("width")
	return int(spec.Multiple)
}

func sides(s *Stage, model string, h, w int) stage.Options {
	f := factorOf(s, model)
	return stage.Options{"width": stage.IntOption(int64(w * f)), "height": stage.IntOption(int64(h * f))}
}

// encode gives the states of a prompt, or of a negative one and another.
func encode(ctx context.Context, s *Stage, model string, prompts ...string) (tensor.Tensor, error) {
	return encodeAs(ctx, s, model, stage.Options{}, prompts...)
}

// encodeAs is encode with options of how prompts are read.
func encodeAs(ctx context.Context, s *Stage, model string, o stage.Options, prompts ...string) (tensor.Tensor, error) {
	o["prompt"], o["guidance_scale"] = stage.TextOption(prompts[len(prompts)-1]), stage.FloatOption(float64(len(prompts)))
	if len(prompts) > 1 {
		o["negative_prompt"] = stage.TextOption(prompts[0])
	}
	out, err := s.Work(ctx, stage.WorkRequest{Turn: "encode", Components: []string{partOf(s, model)}, Options: o}, stage.Observer{})
	if err != nil {
		return tensor.Tensor{}, err
	}
	return out.Values[0].Tensor, nil
}

// denoising is a request to a denoiser.
type denoising struct {
	Model       string
	States      tensor.Tensor
	H, W        int // of the latent
	Steps       int
	Guidance    float32
	Sampler     string
	Seed        uint64
	Checkpoints int
	More        stage.Values
	Strength    float64
	Resume      *stage.Checkpoint
}

func denoise(ctx context.Context, s *Stage, r denoising, observer stage.Observer) (tensor.Tensor, error) {
	o := sides(s, r.Model, r.H, r.W)
	o["steps"], o["guidance_scale"] = stage.IntOption(int64(r.Steps)), stage.FloatOption(float64(r.Guidance))
	if r.Sampler != "" {
		o["sampler"] = stage.TextOption(r.Sampler)
	}
	if r.Strength != 0 {
		o["strength"] = stage.FloatOption(r.Strength)
	}
	out, err := s.Work(ctx, stage.WorkRequest{
		Turn: "denoise", Components: []string{partOf(s, r.Model)}, Options: o, Values: append(stage.Values{{Name: "hidden_states", Tensor: r.States}}, r.More...),
		Seed: r.Seed, CheckpointEveryNSteps: r.Checkpoints, Resume: r.Resume,
	}, observer)
	if err != nil {
		return tensor.Tensor{}, err
	}
	return out.Values[0].Tensor, nil
}

// decode makes a file of latents, with some text if there is any.
func decode(ctx context.Context, s *Stage, model string, latents tensor.Tensor, format, text string) (*stage.File, error) {
	o := sides(s, model, latents.Shape[2], latents.Shape[3])
	o["format"] = stage.TextOption(format)
	values := stage.Values{{Name: "latents", Tensor: latents}}
	if text != "" {
		values = append(values, stage.Value{Name: "parameters", File: &stage.File{Media: "text/plain", Data: []byte(text)}})
	}
	out, err := s.Work(ctx, stage.WorkRequest{Turn: "decode", Components: []string{partOf(s, model)}, Options: o, Values: values}, stage.Observer{})
	if err != nil {
		return nil, err
	}
	return out.Values[0].File, nil
}

// footprint is the footprint of the turn that draws in a stage.
func footprint(ctx context.Context, s *Stage, model string, h, w, batch int, limit int64) (stage.Footprint, error) {
	o := sides(s, model, h, w)
	turn := map[stage.Kind]string{stage.KindEncoder: "encode", stage.KindDenoiser: "denoise", stage.KindDecoder: "decode"}[s.kind]
	if s.kind == stage.KindEncoder {
		o = stage.Options{}
	}
	if s.kind != stage.KindDecoder {
		o["guidance_scale"] = stage.FloatOption(float64(batch))
	}
	return s.Plan(ctx, stage.PlanRequest{Turn: turn, Components: []string{partOf(s, model)}, Options: o, LimitBytes: limit})
}
