package pipeline

import (
	"context"
	"fmt"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// encode makes the conditioning of the request.
func (j *job) encode(ctx context.Context) (stage.Conditioning, error) {
	var out stage.Conditioning
	prompts := j.spec.prompts()
	err := j.turn(ctx, stage.KindEncoder, func(ctx context.Context, id residency.StageID) (err error) {
		j.emit(Progress{Kind: stage.KindEncoder, Steps: 1})
		out, err = j.Fleet.Encoder(id).Encode(ctx, stage.EncodeRequest{Model: j.part(stage.KindEncoder), Prompts: prompts})
		return err
	}, nil)
	if err != nil {
		return out, err
	}
	j.emit(Progress{Kind: stage.KindEncoder, Step: 1, Steps: 1})
	names := []string{"negative_prompt", "prompt"}[2-len(prompts):]
	for i, dropped := range out.DroppedTokens {
		if dropped > 0 {
			j.emit(Warning{Code: PromptTruncated, Message: fmt.Sprintf("%s: %s beyond the model's limit of %d cut off", names[i], stage.Count(dropped, "token"), j.spec.Model.MaxTokens)})
		}
	}
	return out, nil
}

// denoise makes the latent of image i. A lost denoiser is followed by another, which goes on from
// the last checkpoint.
func (j *job) denoise(ctx context.Context, i int, conditioning stage.Conditioning) (stage.Latent, error) {
	var out stage.Latent
	var checkpoint *stage.Checkpoint
	reached := func() int {
		if checkpoint == nil {
			return 0
		}
		return checkpoint.Step
	}
	previews := j.previews(ctx, i)
	defer previews.close()
	observer := stage.DenoiseObserver{
		Ready: func(all int, _ string) {
			j.emit(Progress{Kind: stage.KindDenoiser, Image: i, Step: reached(), Steps: all})
		},
		Progress:   func(done, all int) { j.emit(Progress{Kind: stage.KindDenoiser, Image: i, Step: done, Steps: all}) },
		Preview:    previews.offer,
		Checkpoint: func(c stage.Checkpoint) { checkpoint = &c },
	}
	err := j.turn(ctx, stage.KindDenoiser, func(ctx context.Context, id residency.StageID) (err error) {
		out, err = j.Fleet.Denoiser(id).Denoise(ctx, stage.DenoiseRequest{
			Model: j.part(stage.KindDenoiser), Conditioning: conditioning, LatentHeight: j.spec.latentHeight(), LatentWidth: j.spec.latentWidth(),
			Steps: j.spec.Steps, GuidanceScale: j.spec.GuidanceScale, Sampler: j.spec.Sampler, Seed: j.spec.seed(i),
			PreviewEveryNSteps: j.spec.PreviewEveryNSteps, CheckpointEveryNSteps: j.CheckpointEveryNSteps, Resume: checkpoint,
		}, observer)
		if stage.ReasonOf(err) == stage.NotFinite {
			checkpoint = nil // of the same weights
		}
		return err
	}, reached)
	return out, err
}

// decode makes the file of image i and emits it.
func (j *job) decode(ctx context.Context, i int, latent stage.Latent) error {
	var image stage.Image
	err := j.turn(ctx, stage.KindDecoder, func(ctx context.Context, id residency.StageID) (err error) {
		j.emit(Progress{Kind: stage.KindDecoder, Image: i, Steps: 1})
		image, err = j.Fleet.Decoder(id).Decode(ctx, stage.DecodeRequest{
			Model: j.part(stage.KindDecoder), Latent: latent, Format: j.spec.Format, Quality: j.spec.Quality, Text: j.text(i),
		})
		return err
	}, nil)
	if err != nil {
		return err
	}
	j.emit(Progress{Kind: stage.KindDecoder, Image: i, Step: 1, Steps: 1})
	j.emit(Image{Index: i, Seed: j.spec.seed(i), Image: image})
	return nil
}

// text is the parameters of image i in the form that most tools read from PNG files.
func (j *job) text(i int) []stage.ImageText {
	if j.spec.OmitMetadata {
		return nil
	}
	s := j.spec
	value := s.Prompt
	if s.NegativePrompt != "" {
		value += "\nNegative prompt: " + s.NegativePrompt
	}
	value += fmt.Sprintf("\nSteps: %d, Sampler: %s, CFG scale: %g, Seed: %d, Size: %dx%d, Model: %s",
		s.Steps, s.Sampler, s.GuidanceScale, s.seed(i), s.WidthPx, s.HeightPx, s.Model.Name)
	return []stage.ImageText{{Key: "parameters", Value: value}}
}
