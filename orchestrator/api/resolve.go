package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// maxImages is how many images a request may ask for, as documented in generation.proto.
const maxImages = 64

// fields are the options that have a field of their own in a GenerationSpec, and its name.
var fields = map[string]string{
	"prompt": "prompt", "negative_prompt": "negative_prompt", "width": "width_px", "height": "height_px", "steps": "steps", "sampler": "sampler",
	"guidance_scale": "guidance_scale", "strength": "strength", "format": "output.format", "quality": "output.quality",
}

// typed are the options that a request says in those fields.
func typed(p *triptychv1alpha1.GenerationSpec) stage.Options {
	out := stage.Options{}
	o := p.GetOutput()
	if o == nil {
		o = &triptychv1alpha1.OutputOptions{}
	}
	for name, v := range map[string]string{"prompt": p.GetPrompt(), "negative_prompt": p.GetNegativePrompt(), "sampler": p.GetSampler(), "format": o.GetFormat()} {
		if v != "" {
			out[name] = stage.TextOption(v)
		}
	}
	for name, v := range map[string]*int32{"width": p.WidthPx, "height": p.HeightPx, "steps": p.Steps, "quality": o.Quality} {
		if v != nil {
			out[name] = stage.IntOption(int64(*v))
		}
	}
	if p.GuidanceScale != nil {
		out["guidance_scale"] = stage.FloatOption(float64(p.GetGuidanceScale()))
	}
	if p.Strength != nil {
		out["strength"] = stage.FloatOption(p.GetStrength())
	}
	return out
}

// request is a request that has been checked.
type request struct {
	model fleet.Model
	job   *pipeline.Job
}

// resolve checks a request, by what its model tells of its options and inputs, and fills in every default. waiting hears of the
// stages that have to be there before that can be known.
func (s *Service) resolve(ctx context.Context, p *triptychv1alpha1.GenerationSpec, waiting func(pipeline.Queued)) (r request, err error) {
	if p == nil {
		return r, stage.Invalid(stage.InvalidField, "spec", "", "what to make")
	}
	spec := pipeline.Spec{
		ImageCount: 1, OmitMetadata: p.GetOutput().GetOmitMetadata(), PreviewEveryNSteps: int(p.GetPreview().GetEveryNSteps()),
		// Seeds a caller can write in any language: 53 bits.
		Seed: rand.Uint64N(1 << 53), //nolint:gosec // a seed of noise, not a secret
	}
	if p.Seed != nil {
		spec.Seed = p.GetSeed()
	}
	if p.ImageCount != nil {
		spec.ImageCount = int(p.GetImageCount())
	}
	if n := spec.ImageCount; n < 1 || n > maxImages {
		return r, stage.Invalid(stage.InvalidField, "image_count", n, fmt.Sprintf("1 to %d", maxImages))
	}
	files, err := filesOf(p)
	if err != nil {
		return r, err
	}
	model := func(patience time.Duration) (fleet.Model, error) {
		return s.Pipeline.Fleet.Model(ctx, p.GetModel(), patience)
	}
	if r.model, err = s.once(ctx, waiting, model); err != nil {
		return r, err
	}
	spec.Model = r.model.Name
	if spec.Recipe, err = r.model.Recipe(p.GetTask()); err != nil {
		return r, err
	}
	if most, n := maxPreviewSteps(spec.Recipe), spec.PreviewEveryNSteps; n < 0 || n > most {
		return r, stage.Invalid(stage.InvalidField, "preview.every_n_steps", n, fmt.Sprintf("0 to %d", most))
	}
	inputs, err := inputsOf(spec.Recipe, files)
	if err != nil {
		return r, err
	}
	if spec.Options, err = optionsOf(spec, p, inputs); err != nil {
		return r, err
	}
	if err := spec.Recipe.CheckInputs(spec.Options, inputs.Has); err != nil {
		return r, err
	}
	chosen := func(patience time.Duration) (fleet.Model, error) {
		return s.Pipeline.Fleet.Chosen(ctx, r.model, spec.Options, patience)
	}
	if r.model, err = s.once(ctx, waiting, chosen); err != nil {
		return r, atField(spec.Recipe, err)
	}
	if spec.Recipe, err = r.model.Recipe(p.GetTask()); err != nil {
		return r, err
	}
	r.job = pipeline.NewJob(spec, inputs)
	return r, unused(r.job.Spec)
}

// once is a model, as get gives it within its patience, once the stages are there that may have it.
func (s *Service) once(ctx context.Context, waiting func(pipeline.Queued), get func(patience time.Duration) (fleet.Model, error)) (fleet.Model, error) {
	m, err := get(0)
	if missing(err) == nil {
		return m, err
	}
	defer s.Pipeline.Fleet.Explain(ctx, func() *stage.Error {
		_, err := get(0)
		return missing(err)
	}, func(why *stage.Error) {
		if why != nil {
			waiting(pipeline.Lacking(why))
		}
	})()
	return get(s.Pipeline.Patience)
}

// atField is an error about an option with the name of the field that says it.
func atField(r stage.Recipe, err error) error {
	var e *stage.Error
	if !errors.As(err, &e) {
		return err
	}
	name := e.Metadata["field"]
	if _, ok := r.Option(name); !ok {
		return err
	}
	field := fieldOf(name)
	out := e.With("field", field)
	if rest, ok := strings.CutPrefix(e.Message, name+" = "); ok {
		out.Message = field + " = " + rest
	}
	return out
}

// fieldOf is where a request says an option.
func fieldOf(option string) string { return cmp.Or(fields[option], "options."+option) }

// missing is an error that is about a stage which is not there, nil of any other.
func missing(err error) *stage.Error {
	var e *stage.Error
	if errors.As(err, &e) && e.Metadata["stage"] != "" && (e.Reason == stage.StageUnreachable || e.Reason == stage.StageOwned) {
		return e
	}
	return nil
}

// maxPreviewSteps is how rare previews may be: no rarer than there are steps at most.
func maxPreviewSteps(r stage.Recipe) int {
	steps, _ := r.Option("steps")
	return int(steps.Max)
}

// optionsOf are the options of a request, defaults included.
func optionsOf(spec pipeline.Spec, p *triptychv1alpha1.GenerationSpec, inputs stage.Values) (stage.Options, error) {
	given := typed(p)
	for _, name := range slices.Sorted(maps.Keys(p.GetOptions())) {
		o := optionFromProto(p.GetOptions()[name])
		if own, ok := fields[name]; ok {
			return nil, stage.Invalid(stage.InvalidField, "options."+name, o, "it in "+own)
		}
		given[name] = o
	}
	if err := lift(spec.Recipe, given); err != nil {
		return nil, err
	}
	if err := rename(spec.Recipe, given); err != nil {
		return nil, err
	}
	var known []string
	out := stage.Options{}
	for _, o := range spec.Recipe.Options {
		known = append(known, o.Name)
		name := fieldOf(o.Name)
		v, said := given[o.Name]
		delete(given, o.Name)
		if !said {
			v = cmp.Or(own(o, inputs), o.Default)
		}
		switch {
		case v == stage.Option{} && !said && o.Problem == "":
			continue
		case v == stage.Option{} && !said:
			return nil, o.Missing(name)
		}
		if err := o.Check(name, v); err != nil {
			return nil, err
		}
		out[o.Name] = v
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		return nil, stage.Invalid(stage.InvalidField, fieldOf(name), given[name],
			fmt.Sprintf("an option that model %q has: %s", spec.Model, strings.Join(known, ", ")))
	}
	return out, nil
}

// own is the side that the picture to begin with has, rounded down to a multiple; the zero Option where there is none.
func own(o stage.OptionSpec, inputs stage.Values) stage.Option {
	v, ok := inputs.Get("init_image")
	side := map[string]func() int{"width": func() int { return v.File.WidthPx }, "height": func() int { return v.File.HeightPx }}[o.Name]
	if !ok || side == nil {
		return stage.Option{}
	}
	step := max(1, o.Multiple)
	return stage.IntOption(max(step, int64(side())/step*step))
}

// specProto is a resolved request, without its files.
func specProto(s pipeline.Spec) *triptychv1alpha1.GenerationSpec {
	whole := func(name string) *int32 { return pointer(s, name, func(o stage.Option) int32 { return int32(o.Int) }) }
	text := func(name string) string { return s.Options[name].Text }
	count := int32(s.ImageCount)
	p := &triptychv1alpha1.GenerationSpec{
		Model: s.Model, Task: s.Recipe.Task, Prompt: text("prompt"), NegativePrompt: text("negative_prompt"), Sampler: text("sampler"),
		WidthPx: whole("width"), HeightPx: whole("height"), Steps: whole("steps"), ImageCount: &count, Seed: &s.Seed,
		GuidanceScale: pointer(s, "guidance_scale", func(o stage.Option) float32 { return float32(o.Float) }),
		Strength:      pointer(s, "strength", func(o stage.Option) float64 { return o.Float }),
		Output:        &triptychv1alpha1.OutputOptions{Format: text("format"), Quality: whole("quality"), OmitMetadata: s.OmitMetadata},
		Preview:       &triptychv1alpha1.PreviewOptions{EveryNSteps: int32(s.PreviewEveryNSteps)},
		Options:       map[string]*triptychv1alpha1.OptionValue{},
	}
	for name, o := range s.Options {
		if fields[name] == "" {
			p.Options[name] = optionToProto(o)
		}
	}
	return p
}

// pointer is the value of an option that the model has, else nil.
func pointer[T any](s pipeline.Spec, name string, value func(stage.Option) T) *T {
	o, ok := s.Options[name]
	if !ok {
		return nil
	}
	v := value(o)
	return &v
}

func optionFromProto(v *triptychv1alpha1.OptionValue) stage.Option {
	switch v := v.GetValue().(type) {
	case *triptychv1alpha1.OptionValue_Int:
		return stage.IntOption(v.Int)
	case *triptychv1alpha1.OptionValue_Float:
		return stage.FloatOption(v.Float)
	case *triptychv1alpha1.OptionValue_Text:
		return stage.TextOption(v.Text)
	case *triptychv1alpha1.OptionValue_Bool:
		return stage.BoolOption(v.Bool)
	}
	return stage.Option{}
}

// optionToProto is the value of an option, nil of the zero one.
func optionToProto(o stage.Option) *triptychv1alpha1.OptionValue {
	switch o.Type {
	case stage.Int:
		return &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Int{Int: o.Int}}
	case stage.Float:
		return &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Float{Float: o.Float}}
	case stage.Text:
		return &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Text{Text: o.Text}}
	case stage.Bool:
		return &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Bool{Bool: o.Bool}}
	}
	return nil
}
