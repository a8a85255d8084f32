package sd

import (
	"context"

	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/latent"
	"github.com/triptych-serving/triptych/stage"
)

// prompts are the negative one, where it counts, and the other.
func prompts(o stage.Options) []latent.Prompt {
	return []latent.Prompt{latent.NegativeOf(o, latent.OptionNegative), latent.PromptOf(o, latent.OptionPrompt)}[2-family.Batch(o):]
}

func (m *model) encodeRuns(nets []family.Network, o stage.Options) ([]family.Run, error) {
	loras, err := m.ForTexts(nets, o, 1)
	if err != nil {
		return nil, err
	}
	return m.text.Runs(nets[0], 0, loras[0], prompts(o))
}

// encode gives the states of CLIP, the negative prompt's first.
func (m *model) encode(ctx context.Context, s family.Session, req stage.WorkRequest, _ stage.Observer) (out stage.Result, err error) {
	var batch [][]latent.Prompt
	for _, p := range prompts(req.Options) {
		batch = append(batch, []latent.Prompt{p})
	}
	c, err := latent.Conditions(req.Options, batch)
	if err != nil {
		return out, err
	}
	loras, err := m.ForTexts(latent.Networks(s, req), req.Options, 1)
	if err != nil {
		return out, err
	}
	readings, warnings, err := c.Read(req.Options, s, loras, m.text)
	if err != nil {
		return out, err
	}
	e, err := m.text.Encode(ctx, s, 0, loras[0], readings[0])
	if err != nil {
		return out, err
	}
	states := family.Tensor(latent.ValueStates, e.States, len(c.Rows), readings[0].Chunks()*m.text.Tokens, m.text.Config.HiddenSize)
	return stage.Result{Values: append(stage.Values{states}, c.Values()...), Warnings: warnings}, nil
}
