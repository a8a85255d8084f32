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
	guided := family.Batch(req.Options) == 2
	_, said := req.Options[latent.OptionNegative]
	zeros := guided && !said && req.Options[forceZeros].Bool
	var batch [][]latent.Prompt
	for i := range m.texts {
		for j, p := range prompts(req.Options, i, guided && !zeros) {
			if i == 0 {
				batch = append(batch, nil)
			}
			batch[j] = append(batch[j], p)
		}
	}
	c, err := latent.Conditions(req.Options, batch)
	if err != nil {
		return out, err
	}
	readings, warnings, err := c.Read(req.Options, m.texts...)
	if err != nil {
		return out, err
	}
	encoded := make([]latent.Encoded, len(m.texts))
	for i, t := range m.texts {
		if encoded[i], err = t.Encode(ctx, s, i, readings[i]); err != nil {
			return out, err
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
	rows := len(c.Rows)
	if zeros {
		states, pooled = slices.Concat(make([]float32, len(states)/rows), states), slices.Concat(make([]float32, m.pooled()), pooled)
		rows++
		c = c.Behind()
	}
	out.Values = append(stage.Values{
		family.Tensor(latent.ValueStates, states, rows, readings[0].Chunks()*m.Tokens, m.UNet.ContextDim),
		family.Tensor(latent.ValuePooled, pooled, rows, m.pooled()),
	}, c.Values()...)
	out.Warnings = warnings
	return out, nil
}
