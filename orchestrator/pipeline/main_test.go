package pipeline_test

import (
	"bytes"
	"context"
	"maps"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a pipeline over fakes.
type rig struct {
	*fleettest.Rig
	pipeline.Pipeline
}

func over(r *fleettest.Rig) *rig {
	return &rig{Rig: r, Pipeline: pipeline.Pipeline{Fleet: r.Fleet, Keeper: r.Keeper, Patience: time.Minute, CheckpointEveryNSteps: 5}}
}

func up(t *testing.T) *rig {
	t.Helper()
	return over(fleettest.Up(t))
}

// script is what happens in a kind of stage.
func (r *rig) script(kind stage.Kind) *stagetest.Script { return r.Service(kind).Script }

// request is what a test asks for.
type request struct {
	pipeline.Spec
	model  fleet.Model
	inputs stage.Values
}

// with is the request with an option set.
func (q request) with(name string, o stage.Option) request {
	q.Options = maps.Clone(q.Options)
	q.Options[name] = o
	return q
}

func (q request) job() *pipeline.Job { return pipeline.NewJob(q.Spec, q.inputs) }

// spec is a request of 12 steps with guidance.
func (r *rig) spec(t *testing.T) request {
	t.Helper()
	return r.of(t, stagetest.Model)
}

// model is a model with its slots.
func (r *rig) model(t *testing.T, name string) fleet.Model {
	t.Helper()
	m, err := r.Pipeline.Fleet.Model(fleettest.Soon(t), name, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// of is spec for a model.
func (r *rig) of(t *testing.T, model string) request {
	t.Helper()
	m := r.model(t, model)
	q := request{model: m, Spec: pipeline.Spec{Model: model, Recipe: m.Recipes[0], Options: stage.Options{}, ImageCount: 1, Seed: 7}}
	for _, o := range q.Recipe.Options {
		if o.Default != (stage.Option{}) {
			q.Options[o.Name] = o.Default
		}
	}
	for name, o := range map[string]stage.Option{
		"prompt": stage.TextOption("a boat"), "negative_prompt": stage.TextOption("fog"), "width": stage.IntOption(32), "height": stage.IntOption(24),
		"steps": stage.IntOption(12), "guidance_scale": stage.FloatOption(4),
	} {
		q.Options[name] = o
	}
	return r.chosen(t, q)
}

// chosen is a request with the adapters that its options name.
func (r *rig) chosen(t *testing.T, q request) request {
	t.Helper()
	var err error
	if q.model, err = r.Pipeline.Fleet.Chosen(fleettest.Soon(t), q.model, q.Options, time.Minute); err != nil {
		t.Fatal(err)
	}
	q.Recipe = q.model.Recipes[0]
	return q
}

// styled is spec with adapters.
func (r *rig) styled(t *testing.T) request {
	t.Helper()
	q := r.spec(t).with(stagetest.Styles, stage.TextOption(stagetest.Style+":0.5,"+stagetest.Detail))
	q.model = r.model(t, q.Model)
	return r.chosen(t, q)
}

// planned is what a request takes.
func (r *rig) planned(t *testing.T, q request) pipeline.Plan {
	t.Helper()
	plan, err := r.Plan(fleettest.Soon(t), q.model, q.job().Spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// takes is what a turn takes of the only class of services.
func takes(plan pipeline.Plan, turn stagetest.Op) stage.Footprint {
	for _, f := range plan.Turns[string(turn)] {
		return f
	}
	return stage.Footprint{}
}

// decoder is the need for a decoder alone.
func decoder(plan pipeline.Plan) residency.Need {
	return residency.Need{
		Kind: stage.KindDecoder, Components: []string{stagetest.Component(stage.KindDecoder, stagetest.Model)}, Footprints: plan.Turns[string(stagetest.OpDecode)],
	}
}

// job is a request that runs or has run.
type job struct {
	events  fleettest.Record[pipeline.Event]
	done    chan struct{}
	summary pipeline.Summary
	err     error
}

// start runs a request.
func (r *rig) start(ctx context.Context, id residency.JobID, q request) *job {
	return r.goOn(ctx, id, q.model, q.job())
}

// goOn runs a job from where it is.
func (r *rig) goOn(ctx context.Context, id residency.JobID, m fleet.Model, record *pipeline.Job) *job {
	j := &job{done: make(chan struct{})}
	go func() {
		defer close(j.done)
		plan, err := r.Plan(ctx, m, record.Spec, nil)
		if err != nil {
			j.err = err
			return
		}
		j.summary, j.err = r.Run(ctx, id, record, plan, j.events.Add)
	}()
	return j
}

// run runs a request to its end.
func (r *rig) run(t *testing.T, spec request) *job {
	t.Helper()
	j := r.start(fleettest.Soon(t), "job", spec)
	<-j.done
	return j
}

// good runs a request that succeeds.
func (r *rig) good(t *testing.T, spec request) *job {
	t.Helper()
	j := r.run(t, spec)
	if j.err != nil {
		t.Fatal(j.err)
	}
	return j
}

// only are the events of one type.
func only[E pipeline.Event](j *job) []E {
	var out []E
	for _, e := range j.events.All() {
		if e, ok := e.(E); ok {
			out = append(out, e)
		}
	}
	return out
}

// images are the files in order of their index.
func (j *job) images() [][]byte {
	out := make([][]byte, len(only[pipeline.Image](j)))
	for _, i := range only[pipeline.Image](j) {
		out[i.Index*max(1, i.Units)+i.Unit] = i.File.Data
	}
	return out
}

func same(t *testing.T, got, want *job) {
	t.Helper()
	a, b := got.images(), want.images()
	if len(a) != len(b) || len(a) == 0 {
		t.Fatalf("%d images, want %d", len(a), len(b))
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			t.Errorf("image %d differs", i)
		}
	}
}

// idle waits until nobody is at work, as far as the keeper knows, and fails the test when somebody waits.
func (r *rig) idle(t *testing.T) {
	t.Helper()
	r.Unleased(t)
	if w := r.Pipeline.Keeper.Snapshot().Waiting; len(w) > 0 {
		t.Errorf("somebody waits: %+v", w)
	}
}

func entered(t *testing.T, g *stagetest.Gate) {
	t.Helper()
	select {
	case <-g.Entered():
	case <-fleettest.Soon(t).Done():
		t.Fatal("nobody came to the gate")
	}
}

func died() error { return stage.Errorf(stage.RuntimeDied, "scripted death") }
