package serve

import (
	"context"
	"errors"
	"time"

	"github.com/triptych-serving/triptych/bench/peer"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/families"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// stages are the three stages in this process, as the serving program runs them but for the wire.
type stages struct {
	device *cpu.Device
	all    map[stage.Kind]*stageengine.Stage
	turns  []stage.Turn // of an image
}

// openStages loads every stage of a model.
func openStages(ctx context.Context, model string, threads int) (*stages, error) {
	library, err := stageengine.OpenLibrary(model)
	if err != nil {
		return nil, err
	}
	device, err := cpu.New(cpu.Options{Threads: threads})
	if err != nil {
		return nil, err
	}
	o := stageengine.Options{Library: library, Families: families.All(), Device: device, Host: "bench", Version: "bench"}
	s := &stages{device: device, all: map[stage.Kind]*stageengine.Stage{}}
	for _, kind := range stage.Kinds() {
		s.all[kind] = stageengine.New(kind, o)
	}
	info, err := s.all[stage.KindDenoiser].Info(ctx)
	if m := info.Models; err == nil && m[0].Problem != "" {
		err = errors.New(m[0].Problem)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.turns = info.Models[0].Recipes[0].For(func(string) bool { return false })
	for _, t := range s.turns {
		for _, name := range t.Components() {
			if err := s.all[t.Kind].Load(ctx, stage.LoadRequest{Component: name}, nil); err != nil {
				return nil, errors.Join(err, s.close())
			}
		}
	}
	return s, nil
}

// close frees the weights and ends the threads.
func (s *stages) close() error {
	var problems []error
	for _, t := range s.turns {
		for _, name := range t.Components() {
			_, err := s.all[t.Kind].Evict(context.Background(), stage.EvictRequest{Component: name})
			problems = append(problems, err)
		}
	}
	return errors.Join(append(problems, s.device.Close())...)
}

// Draw implements peer.Engine: from the prompts to the file.
func (s *stages) Draw(ctx context.Context, r peer.ImageRequest) ([]byte, time.Duration, error) {
	start := time.Now()
	options := stage.Options{
		"prompt": stage.TextOption(r.Prompt), "negative_prompt": stage.TextOption(r.NegativePrompt),
		"width": stage.IntOption(int64(r.Width)), "height": stage.IntOption(int64(r.Height)), "steps": stage.IntOption(int64(r.Steps)),
		"guidance_scale": stage.FloatOption(r.GuidanceScale), "sampler": stage.TextOption("ddim"),
	}
	var values stage.Values
	for _, t := range s.turns {
		out, err := s.all[t.Kind].Work(ctx, stage.WorkRequest{
			Turn: t.Name, Components: t.Components(), Options: options.Of(t.Options), Values: values, Seed: r.Seed,
		}, stage.Observer{})
		if err != nil {
			return nil, 0, err
		}
		values = out.Values // all that the next turn takes
	}
	return values[0].File.Data, time.Since(start), nil
}

var errNetwork = errors.New("the stages draw images: start a network by its name")

// Prepare implements peer.Engine.
func (s *stages) Prepare(map[string]peer.Tensor) error { return errNetwork }

// Run implements peer.Engine.
func (s *stages) Run(context.Context) error { return errNetwork }

// Output implements peer.Engine.
func (s *stages) Output() ([]float32, []int) { return nil, nil }

// PeakLedger implements peer.Engine.
func (s *stages) PeakLedger() int64 { return s.device.Memory().PeakBytes }
