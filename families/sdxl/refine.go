package sdxl

import (
	"context"
	"slices"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/latent"
	"github.com/triptych-serving/triptych/stage"
)

// refined is a recipe with the turns of a refiner, for requests that name one: it encodes the prompts by its own text encoder,
// and goes on with the latents of each image.
func refined(r stage.Recipe) stage.Recipe {
	var conditioning []stage.Port
	var numbers []string
	known := func(name string) bool {
		_, ok := r.Option(name)
		return ok
	}
	for _, spec := range numberOptions(true) {
		if numbers = append(numbers, spec.Name); !known(spec.Name) {
			r.Options = append(r.Options, spec)
		}
	}
	r.Options = append(r.Options, latent.RefinerOption())
	var turns []stage.Turn
	for _, t := range r.Turns {
		switch t.Name {
		case family.Encode:
			for _, p := range t.Gives {
				conditioning = append(conditioning, latent.RefinerPort(p))
			}
			turns = append(turns, t, stage.Turn{
				Name: latent.RefineEncode, Kind: stage.KindEncoder, Members: latent.RefinerSlot(modeldir.TextEncoder2Folder), Optional: true, Gives: conditioning,
				Options: append(latent.Reads(latent.OptionPrompt, latent.OptionNegative), latent.Refiner),
			})
		case family.Denoise:
			t.Options = append(t.Options, latent.Refiner)
			given := t.Gives[0]
			given.Name = latent.ValueRefined
			turns = append(turns, t, stage.Turn{
				Name: latent.Refine, Kind: stage.KindDenoiser, Members: latent.RefinerSlot(latent.PartUNet), Optional: true, EachImage: true,
				Takes: slices.Concat(t.Gives, conditioning), Gives: []stage.Port{given},
				Options: slices.Concat([]string{
					family.Width, family.Height, latent.OptionSteps, family.Guidance, latent.OptionSampler, latent.OptionSchedule, latent.OptionEta, latent.OptionOriginalSteps, latent.OptionRescale, latent.OptionBatchSize, latent.OptionBatchIndex, latent.OptionTokens, latent.Refiner,
				}, numbers),
			})
		case family.Decode:
			better := t.Takes[0]
			better.Name, better.Optional = latent.ValueRefined, true
			t.Takes = append(t.Takes, better)
			turns = append(turns, t)
		default:
			turns = append(turns, t)
		}
	}
	r.Turns = turns
	return r
}

// last is the text encoder whose states a refiner is conditioned on.
func (m *model) last() []*latent.Text { return m.texts[len(m.texts)-1:] }

func (m *model) refineEncodeRuns(nets []family.Network, o stage.Options) ([]family.Run, error) {
	return m.runsBy(nets, o, m.last())
}

// refineEncode is encode by the last text encoder alone, which has no zeros for a negative prompt that nobody says.
func (m *model) refineEncode(ctx context.Context, s family.Session, req stage.WorkRequest, _ stage.Observer) (stage.Result, error) {
	out, err := m.encodeBy(ctx, s, req, m.last(), false)
	out.Values = latent.ForRefiner(out.Values)
	return out, err
}
