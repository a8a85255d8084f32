package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// engine is our side: the three stages in this process, as the serving program runs them.
type engine struct {
	model    string
	work     map[string]float64 // floating point operations, by row
	device   *cpu.Device
	encoder  *stageengine.Encoder
	denoiser *stageengine.Denoiser
	decoder  *stageengine.Decoder
}

// openEngine loads every stage of a model.
func openEngine(ctx context.Context, model string, threads int) (*engine, error) {
	work, err := operations(model)
	if err != nil {
		return nil, err
	}
	library, err := stageengine.OpenLibrary(model)
	if err != nil {
		return nil, err
	}
	device, err := cpu.New(cpu.Options{Threads: threads})
	if err != nil {
		return nil, err
	}
	options := stageengine.Options{Library: library, Device: device, Host: "bench", Version: "bench"}
	e := &engine{
		model: filepath.Base(model), work: work, device: device,
		encoder: stageengine.NewEncoder(options), denoiser: stageengine.NewDenoiser(options), decoder: stageengine.NewDecoder(options),
	}
	for _, s := range e.stages() {
		if err := s.Load(ctx, e.model, nil); err != nil {
			return nil, errors.Join(err, e.close())
		}
	}
	return e, nil
}

func (e *engine) stages() []stage.Resident { return []stage.Resident{e.encoder, e.denoiser, e.decoder} }

// close frees the weights and ends the threads.
func (e *engine) close() error {
	var problems []error
	for _, s := range e.stages() {
		_, err := s.Evict(context.Background(), e.model)
		problems = append(problems, err)
	}
	return errors.Join(append(problems, e.device.Close())...)
}

// do implements side.
func (e *engine) do(ctx context.Context, t task) (outcome, error) {
	switch t.op {
	case encode:
		return e.encode(ctx)
	case denoise:
		out, _, err := e.denoise(ctx, stage.Conditioning{States: tensor.FromF32(t.values, t.shape...)})
		return out, err
	case decode:
		return e.decode(ctx, stage.Latent{Tensor: tensor.FromF32(t.values, t.shape...)})
	case whole:
		return e.whole(ctx)
	}
	return outcome{}, fmt.Errorf("no operation %q", t.op)
}

func (e *engine) encode(ctx context.Context) (outcome, error) {
	start := time.Now()
	c, err := e.encoder.Encode(ctx, e.prompts())
	if err != nil {
		return outcome{}, err
	}
	took := time.Since(start)
	values, err := c.States.Float32s()
	return outcome{seconds: map[string]float64{"encode": took.Seconds()}, values: values, shape: c.States.Shape}, err
}

func (e *engine) prompts() stage.EncodeRequest {
	return stage.EncodeRequest{Model: e.model, Prompts: []string{negativePrompt, prompt}}
}

// denoise times the stage, and its steps by what its observer hears: a step is the median one.
func (e *engine) denoise(ctx context.Context, c stage.Conditioning) (outcome, stage.Latent, error) {
	marks := make([]time.Time, 0, steps+1)
	mark := func() { marks = append(marks, time.Now()) }
	start := time.Now()
	latent, err := e.denoiser.Denoise(ctx, stage.DenoiseRequest{
		Model: e.model, Conditioning: c, LatentHeight: latentSide, LatentWidth: latentSide,
		Steps: steps, GuidanceScale: guidanceScale, Sampler: "ddim", Seed: seed,
	}, stage.DenoiseObserver{Ready: func(int, string) { mark() }, Progress: func(int, int) { mark() }})
	if err != nil {
		return outcome{}, latent, err
	}
	took := time.Since(start)
	var each []float64
	for i := 1; i < len(marks); i++ {
		each = append(each, marks[i].Sub(marks[i-1]).Seconds())
	}
	values, err := latent.Float32s()
	return outcome{
		seconds: map[string]float64{"step": summarize(each).Median, "denoise": took.Seconds()},
		values:  values, shape: latent.Shape,
	}, latent, err
}

// decode times the stage, and once more the writing of its file, so that what remains is the network.
func (e *engine) decode(ctx context.Context, l stage.Latent) (outcome, error) {
	start := time.Now()
	img, err := e.decoder.Decode(ctx, stage.DecodeRequest{Model: e.model, Latent: l})
	if err != nil {
		return outcome{}, err
	}
	took := time.Since(start)
	colours, height, width, err := imaging.Decode(img.Data)
	if err != nil {
		return outcome{}, err
	}
	picture := imaging.FromFloats(colours, height, width)
	start = time.Now()
	if _, err := imaging.Encode(picture, imaging.Options{Format: imaging.PNG}); err != nil {
		return outcome{}, err
	}
	png := time.Since(start)
	return outcome{
		seconds: map[string]float64{"decode": (took - png).Seconds(), "png": png.Seconds(), "decode_png": took.Seconds()},
		file:    img.Data,
	}, nil
}

func (e *engine) whole(ctx context.Context) (outcome, error) {
	start := time.Now()
	c, err := e.encoder.Encode(ctx, e.prompts())
	if err != nil {
		return outcome{}, err
	}
	_, latent, err := e.denoise(ctx, c)
	if err != nil {
		return outcome{}, err
	}
	img, err := e.decoder.Decode(ctx, stage.DecodeRequest{Model: e.model, Latent: latent})
	if err != nil {
		return outcome{}, err
	}
	return outcome{seconds: map[string]float64{"image": time.Since(start).Seconds()}, file: img.Data}, nil
}
