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

func (m *model) encodeRuns(nets []family.Network, o stage.Options) ([]family.Run, error) {
	return m.runsBy(nets, o, m.texts)
}

// runsBy are those of some text encoders.
func (m *model) runsBy(nets []family.Network, o stage.Options, texts []*latent.Text) (out []family.Run, err error) {
	loras, err := m.ForTexts(nets, o, len(texts))
	if err != nil {
		return nil, err
	}
	for i, t := range texts {
		runs, err := t.Runs(nets[i], i, loras[i], prompts(o, i, family.Batch(o) == 2))
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
	return m.encodeBy(ctx, s, req, m.texts, zeros)
}

// encodeBy is encode by some text encoders, with zeros for the negative prompt or not.
func (m *model) encodeBy(ctx context.Context, s family.Session, req stage.WorkRequest, texts []*latent.Text, zeros bool) (out stage.Result, err error) {
	guided := family.Batch(req.Options) == 2
	var batch [][]latent.Prompt
	for i := range texts {
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
	loras, err := m.ForTexts(latent.Networks(s, req), req.Options, len(texts))
	if err != nil {
		return out, err
	}
	readings, warnings, err := c.Read(req.Options, s, loras, texts...)
	if err != nil {
		return out, err
	}
	encoded := make([]latent.Encoded, len(texts))
	for i, t := range texts {
		if encoded[i], err = t.Encode(ctx, s, i, loras[i], readings[i]); err != nil {
			return out, err
		}
	}
	var states []float32
	width := 0
	for _, t := range texts {
		width += t.Config.HiddenSize
	}
	pooled := encoded[len(texts)-1].Pooled
	for row := range len(encoded[0].States) / texts[0].Config.HiddenSize {
		for i, t := range texts {
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
		family.Tensor(latent.ValueStates, states, rows, readings[0].Chunks()*m.Tokens, width),
		family.Tensor(latent.ValuePooled, pooled, rows, m.pooled()),
	}, c.Values()...)
	out.Warnings = warnings
	return out, nil
}
