package serve

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/triptych-serving/triptych/bench/peer"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// stages are the three stages in this process, as the serving program runs them but for the wire.
type stages struct {
	model    string
	factor   int // pixels of a side of the image for one of the latents
	device   *cpu.Device
	encoder  *stageengine.Encoder
	denoiser *stageengine.Denoiser
	decoder  *stageengine.Decoder
}

// openStages loads every stage of a model.
func openStages(ctx context.Context, model string, threads int) (*stages, error) {
	dir, err := modeldir.Open(model)
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
	o := stageengine.Options{Library: library, Device: device, Host: "bench", Version: "bench"}
	s := &stages{
		model: filepath.Base(model), factor: dir.VAE.Factor(), device: device,
		encoder: stageengine.NewEncoder(o), denoiser: stageengine.NewDenoiser(o), decoder: stageengine.NewDecoder(o),
	}
	for _, r := range s.all() {
		if err := r.Load(ctx, stage.LoadRequest{Model: s.model}, nil); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

func (s *stages) all() []stage.Resident { return []stage.Resident{s.encoder, s.denoiser, s.decoder} }

// close frees the weights and ends the threads.
func (s *stages) close() error {
	var problems []error
	for _, r := range s.all() {
		_, err := r.Evict(context.Background(), stage.EvictRequest{Model: s.model})
		problems = append(problems, err)
	}
	return errors.Join(append(problems, s.device.Close())...)
}

// Draw implements peer.Engine: from the prompts to the file.
func (s *stages) Draw(ctx context.Context, r peer.ImageRequest) ([]byte, time.Duration, error) {
	start := time.Now()
	prompts := []string{r.NegativePrompt, r.Prompt}
	if r.GuidanceScale <= 1 {
		prompts = prompts[1:]
	}
	c, err := s.encoder.Encode(ctx, stage.EncodeRequest{Model: s.model, Prompts: prompts})
	if err != nil {
		return nil, 0, err
	}
	latent, err := s.denoiser.Denoise(ctx, stage.DenoiseRequest{
		Model: s.model, Conditioning: c, LatentHeight: r.Height / s.factor, LatentWidth: r.Width / s.factor,
		Steps: r.Steps, GuidanceScale: float32(r.GuidanceScale), Sampler: "ddim", Seed: r.Seed,
	}, stage.DenoiseObserver{})
	if err != nil {
		return nil, 0, err
	}
	img, err := s.decoder.Decode(ctx, stage.DecodeRequest{Model: s.model, Latent: latent})
	return img.Data, time.Since(start), err
}

var errNetwork = errors.New("the stages draw images: start a network by its name")

// Prepare implements peer.Engine.
func (s *stages) Prepare(map[string]peer.Tensor) error { return errNetwork }

// Run implements peer.Engine.
func (s *stages) Run(context.Context) error { return errNetwork }

// Output implements peer.Engine.
func (s *stages) Output() ([]float32, []int) { return nil, nil }
