package sdxl

import (
	"context"
	"slices"

	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/latent"
	"github.com/triptych-serving/triptych/stage"
)

// The prompts of the second text encoder; those of the first, where nothing is said.
const (
	optionPrompt2   = "prompt_2"
	optionNegative2 = "negative_prompt_2"
)

func (m *model) encodeRuns(nets []family.Network, o stage.Options) (out []family.Run, err error) {
	for i, t := range m.texts {
		runs, err := t.Runs(nets[i], i, prompts(o, i, family.Batch(o) == 2))
		if err != nil {
			return nil, err
		}
		out = append(out, runs...)
	}
	return out, nil
}

// prompts are those of a text encoder, the negative one first where it counts.
func prompts(o stage.Options, encoder int, negative bool) (out []latent.Prompt) {
	first := 1 - encoder // of the names below
	if negative {
		out = append(out, latent.NegativeOf(o, []string{optionNegative2, latent.OptionNegative}[first:]...))
	}
	return append(out, latent.PromptOf(o, []string{optionPrompt2, latent.OptionPrompt}[first:]...))
}

// encode gives the states of both text encoders side by side, and the pooled state of the second, those of the negative prompt
// first. Where there is none they are zeros, if the model was trained so. Reference: StableDiffusionXLPipeline.encode_prompt.
func (m *model) encode(ctx context.Context, s family.Session, req stage.WorkRequest, _ stage.Observer) (out stage.Result, err error) {
	batch := family.Batch(req.Options)
	_, said := req.Options[latent.OptionNegative]
	zeros := batch == 2 && !said && req.Options[forceZeros].Bool
	encoded := make([]latent.Encoded, len(m.texts))
	for i, t := range m.texts {
		var warnings []stage.Warning
		if encoded[i], warnings, err = t.Encode(ctx, s, i, prompts(req.Options, i, batch == 2 && !zeros)); err != nil {
			return out, err
		}
		for _, w := range warnings {
			if !slices.Contains(out.Warnings, w) {
				out.Warnings = append(out.Warnings, w)
			}
		}
	}
	var states []float32
	pooled := encoded[len(m.texts)-1].Pooled
	for row := range len(encoded[0].States) / m.texts[0].Config.HiddenSize {
		for i, t := range m.texts {
			width := t.Config.HiddenSize
			states = append(states, encoded[i].States[row*width:][:width]...)
		}
	}
	if zeros {
		states, pooled = slices.Concat(make([]float32, len(states)), states), slices.Concat(make([]float32, len(pooled)), pooled)
	}
	out.Values = stage.Values{
		family.Tensor(latent.ValueStates, states, batch, m.Tokens, m.UNet.ContextDim), family.Tensor(latent.ValuePooled, pooled, batch, m.pooled()),
	}
	return out, nil
}
