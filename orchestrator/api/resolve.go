package api

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// The bounds and defaults of a request, as documented in generation.proto.
const (
	maxPromptBytes   = 8192
	maxSidePx        = 4096
	maxImages        = 64
	maxSteps         = 1000
	maxGuidanceScale = 100

	defaultSteps         = 20
	defaultGuidanceScale = 5
	defaultQuality       = 90
)

// resolve checks a request and fills in every default. What needs no model is checked first, so that
// a bad request fails at once even while stages start.
func (s *Service) resolve(ctx context.Context, p *triptychv1alpha1.GenerationSpec) (pipeline.Spec, error) {
	if p == nil {
		return pipeline.Spec{}, stage.Invalid(stage.InvalidField, "spec", "", "what to make")
	}
	spec := pipeline.Spec{
		Prompt: p.GetPrompt(), NegativePrompt: p.GetNegativePrompt(), Sampler: p.GetSampler(), OmitMetadata: p.GetOutput().GetOmitMetadata(),
		ImageCount: 1, Steps: defaultSteps, GuidanceScale: defaultGuidanceScale, Quality: defaultQuality,
		// Seeds a caller can write in any language: 53 bits.
		Seed: rand.Uint64N(1 << 53), //nolint:gosec // a seed of noise, not a secret
	}
	if err := prompt("prompt", spec.Prompt); err != nil {
		return spec, err
	}
	if err := prompt("negative_prompt", spec.NegativePrompt); err != nil {
		return spec, err
	}
	if p.Seed != nil {
		spec.Seed = p.GetSeed()
	}
	if p.GuidanceScale != nil {
		g := p.GetGuidanceScale()
		if math.IsNaN(float64(g)) || g < 0 || g > maxGuidanceScale {
			return spec, stage.Invalid(stage.InvalidField, "guidance_scale", g, fmt.Sprintf("a number from 0 to %d", maxGuidanceScale))
		}
		spec.GuidanceScale = g
	}
	var quality *int32
	if o := p.GetOutput(); o != nil {
		quality = o.Quality
	}
	for _, f := range []struct {
		name   string
		given  *int32
		hi     int
		target *int
	}{
		{"image_count", p.ImageCount, maxImages, &spec.ImageCount},
		{"steps", p.Steps, maxSteps, &spec.Steps},
		{"output.quality", quality, 100, &spec.Quality},
	} {
		if err := whole(f.name, f.given, f.hi, f.target); err != nil {
			return spec, err
		}
	}
	format, ok := stage.ParseImageFormat(p.GetOutput().GetFormat())
	if !ok {
		return spec, stage.Invalid(stage.InvalidField, "output.format", p.GetOutput().GetFormat(), "png, jpeg or webp")
	}
	spec.Format = format
	if n := p.GetPreview().GetEveryNSteps(); n < 0 || n > maxSteps {
		return spec, stage.Invalid(stage.InvalidField, "preview.every_n_steps", n, fmt.Sprintf("0 to %d", maxSteps))
	}
	spec.PreviewEveryNSteps = int(p.GetPreview().GetEveryNSteps())
	for _, side := range sides(p, &spec) {
		if v := side.given; v != nil && (*v < 1 || *v > maxSidePx) {
			return spec, stage.Invalid(stage.SizeUnsupported, side.name, *v, fmt.Sprintf("1 to %d pixels, a multiple of the model's size step", maxSidePx))
		}
	}
	return spec, s.resolveForModel(ctx, p, &spec)
}

// resolveForModel checks what the model decides.
func (s *Service) resolveForModel(ctx context.Context, p *triptychv1alpha1.GenerationSpec, spec *pipeline.Spec) error {
	var err error
	if spec.Model, err = s.Pipeline.Fleet.Model(ctx, p.GetModel(), s.Pipeline.Patience); err != nil {
		return err
	}
	for _, side := range sides(p, spec) {
		*side.target = side.own
		if side.given == nil {
			continue
		}
		if err := stage.CheckSide(side.name, int(*side.given), spec.Model.SizeMultiple, maxSidePx, "pixels"); err != nil {
			return err
		}
		*side.target = int(*side.given)
	}
	if spec.Sampler == "" {
		spec.Sampler = spec.Model.DefaultSampler
	}
	if spec.Sampler == "" {
		return stage.NoDefaultSampler(spec.Model.Samplers, spec.Model.SamplerProblem)
	}
	if !slices.Contains(spec.Model.Samplers, spec.Sampler) {
		return stage.Invalid(stage.SamplerUnsupported, "sampler", spec.Sampler, "one of "+strings.Join(spec.Model.Samplers, ", "))
	}
	return nil
}

type side struct {
	name   string
	given  *int32
	target *int
	own    int // the model's default, once it is known
}

func sides(p *triptychv1alpha1.GenerationSpec, spec *pipeline.Spec) []side {
	return []side{
		{"width_px", p.WidthPx, &spec.WidthPx, spec.Model.DefaultWidthPx},
		{"height_px", p.HeightPx, &spec.HeightPx, spec.Model.DefaultHeightPx},
	}
}

// prompt refuses what the encoder cannot take, or the file not carry as text.
func prompt(field, text string) error {
	if len(text) > maxPromptBytes || !utf8.ValidString(text) {
		return stage.Invalid(stage.InvalidField, field, text, fmt.Sprintf("at most %d bytes of UTF-8, got %d", maxPromptBytes, len(text)))
	}
	if at := strings.IndexByte(text, 0); at >= 0 {
		return stage.Invalid(stage.InvalidField, field, text, fmt.Sprintf("text without NUL, got one at byte %d", at))
	}
	return nil
}

// whole sets target to a given number from 1 to hi, and leaves it when none is given.
func whole(field string, given *int32, hi int, target *int) error {
	if given == nil {
		return nil
	}
	if *given < 1 || int(*given) > hi {
		return stage.Invalid(stage.InvalidField, field, *given, fmt.Sprintf("1 to %d", hi))
	}
	*target = int(*given)
	return nil
}
