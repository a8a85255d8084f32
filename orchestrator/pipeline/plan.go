package pipeline

import (
	"context"
	"errors"
	"fmt"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// Plan tells what a request takes in each stage. Weights that no device can hold beside their scratch are to be streamed,
// as few of them as that takes; what does not fit even so is refused with ModelDoesNotFit. Nothing is loaded.
func (p *Pipeline) Plan(ctx context.Context, spec Spec) (map[stage.Kind]stage.Footprint, error) {
	needs := map[stage.Kind]stage.Footprint{}
	for _, kind := range stage.Kinds() {
		need, err := p.planned(ctx, kind, spec, 0)
		if err != nil {
			return nil, err
		}
		device, refused := p.Keeper.Check(need)
		if errors.Is(refused, &stage.Error{Reason: stage.ModelDoesNotFit}) {
			if need, err = p.planned(ctx, kind, spec, need.Footprint.LimitWithin(device.BudgetBytes)); err != nil {
				return nil, err
			}
			device, refused = p.Keeper.Check(need)
		}
		if refused != nil {
			return nil, p.smallest(ctx, spec, device, refused)
		}
		needs[kind] = need.Footprint
	}
	return needs, nil
}

// planned is what a request takes in a kind of stage with weights of at most limit bytes, 0 is no limit.
func (p *Pipeline) planned(ctx context.Context, kind stage.Kind, spec Spec, limit int64) (residency.Need, error) {
	batch := 1
	if kind != stage.KindDecoder {
		batch = len(spec.prompts())
	}
	model := spec.Model.Part(kind)
	ctx, done := p.Fleet.Guard(ctx, kind, model, p.Patience)
	defer done()
	footprint, err := p.Fleet.Plan(ctx, kind, stage.PlanRequest{
		Model: model, Batch: batch, LatentHeight: spec.latentHeight(), LatentWidth: spec.latentWidth(), LimitBytes: limit,
	})
	return residency.Need{Kind: kind, Model: model, Footprint: footprint}, err
}

// smallest adds to a refusal the smallest budget of the device that the request would do with.
func (p *Pipeline) smallest(ctx context.Context, spec Spec, device residency.Device, refused error) error {
	var e *stage.Error
	if !errors.As(refused, &e) || e.Reason != stage.ModelDoesNotFit {
		return refused
	}
	budget := int64(0)
	for _, kind := range stage.Kinds() {
		least, err := p.planned(ctx, kind, spec, 1)
		if err != nil {
			return err
		}
		if at, _ := p.Keeper.Check(least); at.Key() == device.Key() { // whether it fits is not asked here
			budget = max(budget, least.Footprint.WeightsBytes+least.Footprint.ScratchBytes)
		}
	}
	e = e.With("least_budget_bytes", fmt.Sprint(budget))
	e.Message += fmt.Sprintf("; the smallest budget that the request can do with is %s", stage.SizeUp(budget))
	return e
}
