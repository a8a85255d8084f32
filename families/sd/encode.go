package sd

import (
	"context"

	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/latent"
	"github.com/triptych-serving/triptych/stage"
)

func (m *model) encodeRuns(nets []family.Network, o stage.Options) ([]family.Run, error) {
	run, err := m.text.Run(nets[0], 0, family.Batch(o))
	return []family.Run{run}, err
}

// encode gives the states of CLIP, the negative prompt's first.
func (m *model) encode(ctx context.Context, s family.Session, req stage.WorkRequest, _ stage.Observer) (stage.Result, error) {
	names := []string{latent.OptionNegative, latent.OptionPrompt}[2-family.Batch(req.Options):]
	ids, warnings, err := m.text.IDs(req.Options, names)
	if err != nil {
		return stage.Result{}, err
	}
	states, err := m.text.States(ctx, s, 0, ids)
	if err != nil {
		return stage.Result{}, err
	}
	return stage.Result{
		Values:   stage.Values{family.Tensor(latent.ValueStates, states, len(ids), m.text.Tokens, m.text.Config.HiddenSize)},
		Warnings: warnings,
	}, nil
}
