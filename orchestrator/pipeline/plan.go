package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// Plan is what the turns of a job take.
type Plan struct {
	Turns map[string]map[string]stage.Footprint // by name and by class of services, see stage.Info.Planning
	model fleet.Model
}

// Plan tells what a job takes of each class of services that could do the work. Weights that no device can hold beside their
// scratch are to be streamed, as few of them as that takes; what does not fit even so is refused with ModelDoesNotFit. Nothing is
// loaded. waiting, if not nil, hears why that waits for a stage, and nothing once Plan has returned. ModelInvalid where a component
// cannot be loaded that the job needs, ModelChanged where the model has another recipe.
func (p *Pipeline) Plan(ctx context.Context, model fleet.Model, spec Spec, waiting func(Queued)) (Plan, error) {
	turns := spec.Turns()
	if r, err := model.Recipe(spec.Recipe.Task); err != nil || !reflect.DeepEqual(r, spec.Recipe) {
		return Plan{}, stage.Errorf(stage.ModelChanged, "model %q is used otherwise than when the request was made", spec.Model).With("model", spec.Model)
	}
	if err := model.Able(turns); err != nil {
		return Plan{}, err
	}
	plan := Plan{Turns: map[string]map[string]stage.Footprint{}, model: model}
	for _, t := range turns {
		stop := func() {}
		footprints, device, err := p.planned(ctx, model, spec, t, func() {
			stop() // of the plan before, where there are two
			stop = p.explain(ctx, model, t, waiting)
		})
		stop()
		if err != nil {
			return Plan{}, p.smallest(ctx, model, spec, device, err)
		}
		plan.Turns[t.Name] = footprints
	}
	return plan, nil
}

// explain tells why no stage can be had for a turn, until stop is called.
func (p *Pipeline) explain(ctx context.Context, model fleet.Model, t stage.Turn, waiting func(Queued)) (stop func()) {
	components := p.Fleet.Parts(model, t)
	return p.Fleet.Explain(ctx, func() *stage.Error { return p.Fleet.Absent(t.Kind, components) }, func(why *stage.Error) {
		if why != nil && waiting != nil {
			waiting(Lacking(why))
		}
	})
}

// planned is what a turn takes in each class of services. The error is of the device given, the largest. waits, if not nil, is called
// whenever that begins to wait for a service.
func (p *Pipeline) planned(ctx context.Context, model fleet.Model, spec Spec, t stage.Turn, waits func()) (map[string]stage.Footprint, residency.Device, error) {
	need, err := p.asked(ctx, model, spec, t, 0, nil, waits)
	if err != nil {
		return nil, residency.Device{}, err
	}
	device, refused := p.Keeper.Check(need)
	if errors.Is(refused, &stage.Error{Reason: stage.ModelDoesNotFit}) {
		limits := map[string]int64{}
		for class, f := range need.Footprints {
			limits[class] = f.LimitWithin(device.BudgetBytes)
		}
		if need, err = p.asked(ctx, model, spec, t, 0, limits, waits); err != nil {
			return nil, device, err
		}
		device, refused = p.Keeper.Check(need)
	}
	return need.Footprints, device, refused
}

// asked is what each class of services says that a turn takes, with weights of at most limit bytes or those of its class; 0 is no
// limit.
func (p *Pipeline) asked(ctx context.Context, model fleet.Model, spec Spec, t stage.Turn, limit int64, limits map[string]int64, waits func()) (n residency.Need, err error) {
	n.Kind, n.Components = t.Kind, p.Fleet.Parts(model, t)
	ctx, done := p.Fleet.Guard(ctx, t.Kind, n.Components, p.Patience)
	defer done()
	n.Footprints, err = p.Fleet.Plan(ctx, t.Kind, stage.PlanRequest{
		Turn: t.Name, Components: n.Components, Options: spec.Recipe.Shape(t, spec.Options), LimitBytes: limit,
	}, limits, waits)
	return n, err
}

// smallest adds to a refusal the smallest budget of the device that the job would do with.
func (p *Pipeline) smallest(ctx context.Context, model fleet.Model, spec Spec, device residency.Device, refused error) error {
	var e *stage.Error
	if !errors.As(refused, &e) || e.Reason != stage.ModelDoesNotFit {
		return refused
	}
	budget := int64(0)
	for _, t := range spec.Turns() {
		least, err := p.asked(ctx, model, spec, t, 1, nil, nil)
		if err != nil { // the refusal stands, whoever could not be asked
			return refused
		}
		if at, _ := p.Keeper.Check(least); at.Key() == device.Key() { // whether it fits is not asked here
			budget = max(budget, least.LeastBytes())
		}
	}
	e = e.With("least_budget_bytes", fmt.Sprint(budget))
	e.Message += fmt.Sprintf("; the smallest budget that the request can do with is %s", stage.SizeUp(budget))
	return e
}

// Outline is what a job will ask for, as far as that can be told before it is planned: footprints have the whole weights alone.
func (p *Pipeline) Outline(model fleet.Model, spec Spec) (needs []residency.Need) {
	for _, s := range spec.steps() {
		n := residency.Need{Kind: s.Turn.Kind, Components: p.Fleet.Parts(model, s.Turn), Work: spec.work(s.Turn)}
		var f stage.Footprint
		for _, name := range s.Turn.Components() {
			w := stage.Weights{Component: name}
			for _, c := range model.Components {
				if c.Name == name {
					w.Bytes, w.WholeBytes = c.WeightsBytes, c.WeightsBytes
				}
			}
			f.Weights = append(f.Weights, w)
		}
		n.Footprints = map[string]stage.Footprint{"": f}
		needs = append(needs, n)
	}
	return needs
}

// work is what a turn computes: a denoiser evaluates its network once a step, and of a picture to begin with a part of the steps.
func (s Spec) work(t stage.Turn) residency.Workload {
	w := residency.Workload{Model: s.Model, Turn: t.Name, Evaluations: 1}
	reads := func(option string) (stage.Option, bool) {
		o, ok := s.Options[option]
		return o, ok && slices.Contains(t.Options, option)
	}
	if steps, ok := reads("steps"); ok && t.Kind == stage.KindDenoiser {
		part := 1.
		if strength, ok := reads("strength"); ok && len(s.Inputs) > 0 {
			part = strength.Float
		}
		w.Evaluations = max(1, int(math.Ceil(float64(steps.Int)*part)))
	}
	for _, name := range s.Recipe.ShapeNames(t) {
		if o := s.Options[name]; o.Type == stage.Int {
			w.Shape += fmt.Sprintf("%s=%d ", name, o.Int)
		}
	}
	return w
}

// follow plans turns anew when services of a class join or leave, until ctx ends. When all have left, the plan stands.
func (w *worker) follow(ctx context.Context) {
	classes := map[string][]string{} // that a turn is planned for
	w.job.mu.Lock()
	for turn, footprints := range w.plan.Turns {
		classes[turn] = slices.Sorted(maps.Keys(footprints))
	}
	w.job.mu.Unlock()
	for {
		var changed []stage.Turn
		ended := w.Fleet.Await(ctx, func() bool {
			for _, t := range w.job.Spec.Turns() {
				there := w.Fleet.Classes(t.Kind, w.Fleet.Parts(w.model, t))
				if len(there) > 0 && !slices.Equal(there, classes[t.Name]) {
					classes[t.Name] = there
					changed = append(changed, t)
				}
			}
			return len(changed) > 0
		})
		if ended != nil {
			return
		}
		for _, t := range changed {
			w.replan(ctx, t)
		}
	}
}

// replan plans a turn for the classes of services that are there. What none of them can take stays as it was planned.
func (w *worker) replan(ctx context.Context, t stage.Turn) {
	w.job.mu.Lock()
	spec := w.sized(t)
	w.job.mu.Unlock()
	footprints, _, err := w.planned(ctx, w.model, spec, t, nil)
	if err != nil {
		return
	}
	w.job.mu.Lock()
	w.plan.Turns[t.Name] = footprints
	w.job.mu.Unlock()
	w.announce()
}
