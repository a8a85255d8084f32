package fleet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/triptych-serving/triptych/stage"
)

// plans remembers footprints, which depend on the class of a service, model files and shapes alone.
type plans struct {
	mu    sync.Mutex
	known map[planned]stage.Footprint
}

// planned is what a footprint is of.
type planned struct {
	kind    stage.Kind
	class   string
	request string // in words
}

const (
	maxPlans      = 1000 // bounds what is remembered; shapes come from callers
	maxPlanDeaths = 5    // more runtimes than that are not lost to one question
)

// Classes are the classes, by stage.Info.Planning, of the services of a kind that answer and can load some components; sorted.
func (f *Fleet) Classes(kind stage.Kind, components []string) []string {
	return slices.Sorted(maps.Keys(f.there(kind, components)))
}

// there gives a service of each class that answers.
func (f *Fleet) there(kind stage.Kind, components []string) map[string]*member {
	out := map[string]*member{}
	for _, m := range f.all() {
		if info, up := m.last(); m.kind == kind && up && canAll(info, components) {
			out[info.Planning] = m
		}
	}
	return out
}

// classes are those of all services of which something is known.
func (f *Fleet) classes(kind stage.Kind, components []string) []string {
	out := map[string]bool{}
	for _, info := range f.told() {
		if info.Kind == kind && canAll(&info, components) {
			out[info.Planning] = true
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// Plan tells what a turn takes in each class of services that do the work, as one service of the class says. limits are those of
// the weights by class, and others are not asked; nil is req.LimitBytes for all. A class that refuses is left out, and its refusal
// is the error if all do. Plan waits for a service that answers, and calls waits, if it is not nil, before it does so for the first time;
// when ctx ends first, the error is StageUnreachable. SizeUnsupported, ModelNotFound, ModelInvalid, DiskFull.
func (f *Fleet) Plan(ctx context.Context, kind stage.Kind, req stage.PlanRequest, limits map[string]int64, waits func()) (map[string]stage.Footprint, error) {
	for deaths := 0; ; {
		changed := f.next()
		out := map[string]stage.Footprint{}
		var refused error
		there := f.there(kind, req.Components)
		classes, here := slices.Sorted(maps.Keys(there)), len(there) > 0
		if !here {
			classes = f.classes(kind, req.Components) // for what they have said before
		}
		for _, class := range classes {
			if limit, ok := limits[class]; ok {
				req.LimitBytes = limit
			} else if limits != nil {
				continue
			}
			key := planned{kind, class, fmt.Sprintf("%#v", req)}
			fp, ok := f.plans.recall(key)
			if ok {
				out[class] = fp
			}
			if ok || !here {
				continue
			}
			m := there[class]
			asking, done := f.Until(ctx, m.id, true)
			fp, err := m.stage.Plan(asking, req)
			mute := asking.Err() != nil
			done()
			switch reason := stage.ReasonOf(err); {
			case err == nil:
				if out[class] = fp; fp.SpillBytes == 0 { // else a disk is asked each time
					f.plans.remember(key, fp)
				}
			case ctx.Err() != nil, mute: // whatever the call made of it
			case reason == stage.StageUnreachable:
				f.Report(m.id)
			case reason == stage.RuntimeDied && deaths < maxPlanDeaths:
				deaths++
			case reason == stage.StageDraining:
			case refused == nil:
				refused = err
			}
		}
		if len(out) > 0 || refused != nil {
			if len(out) > 0 {
				refused = nil
			}
			return out, refused
		}
		if waits != nil {
			waits()
			waits = nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, f.Ended(ctx, kind, true)
		}
	}
}

func (p *plans) recall(key planned) (stage.Footprint, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fp, ok := p.known[key]
	return fp, ok
}

func (p *plans) remember(key planned, fp stage.Footprint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil || len(p.known) >= maxPlans {
		p.known = map[planned]stage.Footprint{}
	}
	p.known[key] = fp
}

// forget forgets what is known of a class of a kind.
func (p *plans) forget(kind stage.Kind, class string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.known, func(key planned, _ stage.Footprint) bool { return key.kind == kind && key.class == class })
}
