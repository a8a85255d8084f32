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
	return m.text.Runs(nets[0], 0, prompts(o))
}

// encode gives the states of CLIP, the negative prompt's first.
func (m *model) encode(ctx context.Context, s family.Session, req stage.WorkRequest, _ stage.Observer) (stage.Result, error) {
	e, warnings, err := m.text.Encode(ctx, s, 0, prompts(req.Options))
	if err != nil {
		return stage.Result{}, err
	}
	return stage.Result{
		Values:   stage.Values{family.Tensor(latent.ValueStates, e.States, family.Batch(req.Options), m.text.Tokens, m.text.Config.HiddenSize)},
		Warnings: warnings,
	}, nil
}
