package latent

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// Drawing in two passes, which others call hires fix: what the first one draws is decoded, enlarged and encoded, and drawn from as
// img2img does it, with the seed's draws from the first on.

// TaskHires is the task of it.
const TaskHires = "hires"

// The turns of it that others have not.
const (
	Enlarge     = "enlarge"
	Hires       = "hires_denoise"
	HiresDecode = "hires_decode"
)

const (
	optionHiresScale    = "hires_scale"
	optionHiresStrength = "hires_strength"
	optionHiresSteps    = "hires_steps"
	optionHiresUpscaler = "hires_upscaler"

	valueEnlarged = "enlarged_moments"
	valueHires    = "hires_latents"
)

// Recipes are how a model draws: as a recipe says, and in two passes unless it is a refiner or Inpaints, whose U-Net would need a mask
// in both.
func (m *Model) Recipes(generate stage.Recipe) []stage.Recipe {
	if m.Inpaints() || m.Refines {
		return []stage.Recipe{generate}
	}
	return []stage.Recipe{generate, m.hires(generate)}
}

// hires is a recipe in two passes.
func (m *Model) hires(r stage.Recipe) stage.Recipe {
	r.Task = TaskHires
	r.Options = slices.Concat(r.Options, []stage.OptionSpec{
		{Name: optionHiresScale, Type: stage.Float, Min: 1, Max: 8, Shape: true, Default: stage.FloatOption(2)},
		{Name: optionHiresStrength, Type: stage.Float, Min: 1.0 / sampler.MaxSteps, Max: 1, Default: stage.FloatOption(0.3)},
		{Name: optionHiresSteps, Type: stage.Int, Min: 1, Max: sampler.MaxSteps},
		family.UpscalerOption(optionHiresUpscaler),
	})
	denoise, _ := r.Turn(family.Denoise)
	decode, _ := r.Turn(family.Decode)
	latents := denoise.Gives[0]
	port := func(name string, channels string, size string) stage.Port {
		return Port(name, "1", channels, size+"_height", size+"_width")
	}
	moments := port(valueEnlarged, fmt.Sprint(2*m.VAE.LatentChannels), "hires")
	refined := port(valueHires, fmt.Sprint(m.VAE.LatentChannels), "hires")
	enlarge := stage.Turn{
		Name: Enlarge, Kind: stage.KindDecoder, EachImage: true, Takes: []stage.Port{latents}, Gives: []stage.Port{moments},
		Members: append(m.Members(PartVAEDecoder, PartVAEEncoder), family.UpscalerSlot(optionHiresUpscaler)),
		Options: []string{family.Width, family.Height, optionHiresScale, optionHiresUpscaler, family.UpscaleTile, family.UpscaleBlend, family.UpscalePad},
	}
	refine := denoise
	refine.Name, refine.Gives = Hires, []stage.Port{refined}
	refine.Takes = append(slices.DeleteFunc(slices.Clone(denoise.Takes), func(p stage.Port) bool { return p.Name == ValueMoments || p.Name == ValueMaskLatents }), moments)
	refine.Options = append(slices.DeleteFunc(slices.Clone(denoise.Options), func(name string) bool { return name == OptionStrength }), optionHiresScale, optionHiresStrength, optionHiresSteps)
	decode.Name, decode.Options = HiresDecode, append(slices.Clone(decode.Options), optionHiresScale)
	decode.Takes = slices.Clone(decode.Takes)
	decode.Takes[slices.IndexFunc(decode.Takes, func(p stage.Port) bool { return p.Name == ValueLatents })] = refined
	decode.Takes = slices.DeleteFunc(decode.Takes, func(p stage.Port) bool { return p.Name == ValueRefined })
	others := []string{RefineEncode, Refine, family.Decode} // a refiner has no place between two passes
	r.Turns = append(slices.DeleteFunc(slices.Clone(r.Turns), func(t stage.Turn) bool { return slices.Contains(others, t.Name) }), enlarge, refine, decode)
	for i := range r.Turns {
		r.Turns[i].Options = slices.DeleteFunc(slices.Clone(r.Turns[i].Options), func(name string) bool { return name == Refiner })
	}
	r.Options = slices.DeleteFunc(r.Options, func(s stage.OptionSpec) bool {
		return !slices.ContainsFunc(r.Turns, func(t stage.Turn) bool { return slices.Contains(t.Options, s.Name) })
	})
	return r
}

// hiresOptions are those of the second pass: its size, and how it draws from what the first one made.
func (m *Model) hiresOptions(o stage.Options) (stage.Options, error) {
	out := maps.Clone(o)
	for _, name := range []string{family.Width, family.Height} {
		side := float64(o[name].Int) * o[optionHiresScale].Float / float64(m.PixelMultiple())
		n := m.PixelMultiple() * int(math.Round(side))
		if n > imaging.MaxSide {
			return nil, stage.Invalid(stage.InvalidField, optionHiresScale, o[optionHiresScale], fmt.Sprintf("a factor with which %s %d stays within %d", name, o[name].Int, imaging.MaxSide))
		}
		out[name] = stage.IntOption(int64(n))
	}
	if v, said := o[optionHiresSteps]; said {
		out[OptionSteps] = v
	}
	out[OptionStrength], out[OptionDenoisingEnd] = o[optionHiresStrength], stage.FloatOption(1)
	out[OptionBatchSize], out[OptionBatchIndex] = stage.IntOption(1), stage.IntOption(0)
	return out, nil
}

func (m *Model) enlargeRuns(nets []family.Network, o stage.Options) ([]family.Run, error) {
	refined, err := m.hiresOptions(o)
	if err != nil {
		return nil, err
	}
	runs, err := family.DecodeRuns(m.VAE)(nets[:1], o)
	if err == nil {
		err = family.OneUpscaler(optionHiresUpscaler, o)
	}
	if err == nil && len(nets) > 2 {
		var more []family.Run
		more, err = family.UpscaleRuns(nets[2], 2, o, int(o[family.Height].Int), int(o[family.Width].Int))
		runs = append(runs, more...)
	}
	if err != nil {
		return nil, err
	}
	encode, err := m.momentsRun(nets[1], 1, refined)
	return append(runs, encode), err
}

// enlarge gives the moments of what latents show, in the size of the second pass.
func (m *Model) enlarge(ctx context.Context, s family.Session, req stage.WorkRequest, o stage.Observer) (stage.Result, error) {
	refined, err := m.hiresOptions(req.Options)
	if err == nil {
		err = family.OneUpscaler(optionHiresUpscaler, req.Options)
	}
	if err != nil {
		return stage.Result{}, err
	}
	img, err := m.image(ctx, s, req)
	if err != nil {
		return stage.Result{}, err
	}
	p := imaging.FromImage(img)
	if len(req.Components) > 2 {
		if p, err = family.Upscale(ctx, s, 2, req.Options, p, o.Progress); err != nil {
			return stage.Result{}, err
		}
	}
	p = p.Resize(int(refined[family.Width].Int), int(refined[family.Height].Int))
	moments, err := m.moments(ctx, s, 1, refined, p.Floats())
	if err != nil {
		return stage.Result{}, err
	}
	h, w := m.latentSize(refined)
	return stage.Result{Values: stage.Values{family.Tensor(valueEnlarged, moments, 1, 2*m.VAE.LatentChannels, h, w)}}, nil
}

// inHires are the runs of a turn with the options of the second pass.
func (m *Model) inHires(runs func([]family.Network, stage.Options) ([]family.Run, error)) func([]family.Network, stage.Options) ([]family.Run, error) {
	return func(nets []family.Network, o stage.Options) ([]family.Run, error) {
		refined, err := m.hiresOptions(o)
		if err != nil {
			return nil, err
		}
		return runs(nets, refined)
	}
}

// hiresDenoise is denoise from the moments that enlarge gives.
func (m *Model) hiresDenoise(ctx context.Context, s family.Session, req stage.WorkRequest, o stage.Observer) (out stage.Result, err error) {
	if req.Options, err = m.hiresOptions(req.Options); err != nil {
		return out, err
	}
	req.Values = renamed(req.Values, valueEnlarged, ValueMoments)
	if preview := o.Preview; preview != nil {
		o.Preview = func(done int, estimate stage.Values) { preview(done, renamed(estimate, ValueLatents, valueHires)) }
	}
	out, err = m.denoise(ctx, s, req, o)
	out.Values = renamed(out.Values, ValueLatents, valueHires)
	return out, err
}

// hiresDecode is decode of what the second pass gives.
func (m *Model) hiresDecode(ctx context.Context, s family.Session, req stage.WorkRequest, o stage.Observer) (out stage.Result, err error) {
	if req.Options, err = m.hiresOptions(req.Options); err != nil {
		return out, err
	}
	req.Values = renamed(req.Values, valueHires, ValueLatents)
	return m.decode(ctx, s, req, o)
}

// renamed are values of which one has another name.
func renamed(values stage.Values, from, to string) stage.Values {
	out := slices.Clone(values)
	for i := range out {
		if out[i].Name == from {
			out[i].Name = to
		}
	}
	return out
}
