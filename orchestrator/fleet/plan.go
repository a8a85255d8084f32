package fleet

import (
	"context"
	"sync"

	"github.com/triptych-serving/triptych/stage"
)

// plans remembers footprints, which depend on model files and shapes alone.
type plans struct {
	mu    sync.Mutex
	known map[planKey]stage.Footprint
}

type planKey struct {
	kind stage.Kind
	req  stage.PlanRequest
}

const (
	maxPlans      = 1000 // bounds what is remembered; shapes come from callers
	maxPlanDeaths = 5    // more runtimes than that are not lost to one question
)

// Plan tells what a request takes in a stage of that kind. It waits for a service that answers;
// when ctx ends first, the error is StageUnreachable. SizeUnsupported, ModelNotFound, ModelInvalid, DiskFull.
func (f *Fleet) Plan(ctx context.Context, kind stage.Kind, req stage.PlanRequest) (stage.Footprint, error) {
	key := planKey{kind, req}
	f.plans.mu.Lock()
	fp, ok := f.plans.known[key]
	f.plans.mu.Unlock()
	if ok {
		return fp, nil
	}
	for deaths := 0; ; {
		changed := f.next()
		if m := f.having(kind, req.Model); m != nil {
			asking, done := f.unlessMute(ctx, m.id)
			fp, err := m.resident().Plan(asking, req)
			mute := asking.Err() != nil
			done()
			switch reason := stage.ReasonOf(err); {
			case err == nil:
				if fp.SpillBytes == 0 { // else a disk is asked each time
					f.plans.remember(key, fp)
				}
				return fp, nil
			case ctx.Err() != nil, mute: // whatever the call made of it
			case reason == stage.StageUnreachable:
				f.Report(m.id)
			case reason == stage.RuntimeDied && deaths < maxPlanDeaths:
				deaths++
			case reason == stage.StageDraining:
			default:
				return stage.Footprint{}, err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return stage.Footprint{}, f.Ended(ctx, kind, true)
		}
	}
}

// having gives a service that answers and can load the model, nil if there is none.
func (f *Fleet) having(kind stage.Kind, model string) *member {
	for _, m := range f.members {
		info, up := m.last()
		if m.kind != kind || !up {
			continue
		}
		for _, c := range info.Models {
			if c.Model == model && c.Problem == "" {
				return m
			}
		}
	}
	return nil
}

func (p *plans) remember(key planKey, fp stage.Footprint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil || len(p.known) >= maxPlans {
		p.known = map[planKey]stage.Footprint{}
	}
	p.known[key] = fp
}

func (p *plans) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = nil
}
