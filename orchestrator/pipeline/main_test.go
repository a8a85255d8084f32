package pipeline_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

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

// spec is a request of 12 steps with guidance.
func (r *rig) spec(t *testing.T) pipeline.Spec {
	t.Helper()
	m, err := r.Pipeline.Fleet.Model(fleettest.Soon(t), stagetest.Model, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return pipeline.Spec{
		Model: m, Prompt: "a boat", NegativePrompt: "fog", WidthPx: 32, HeightPx: 24, ImageCount: 1, Seed: 7, Steps: 12,
		GuidanceScale: 4, Sampler: "euler",
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
func (r *rig) start(ctx context.Context, id residency.JobID, spec pipeline.Spec) *job {
	j := &job{done: make(chan struct{})}
	go func() {
		defer close(j.done)
		needs, err := r.Plan(ctx, spec)
		if err != nil {
			j.err = err
			return
		}
		j.summary, j.err = r.Run(ctx, id, spec, needs, j.events.Add)
	}()
	return j
}

// run runs a request to its end.
func (r *rig) run(t *testing.T, spec pipeline.Spec) *job {
	t.Helper()
	j := r.start(fleettest.Soon(t), "job", spec)
	<-j.done
	return j
}

// good runs a request that succeeds.
func (r *rig) good(t *testing.T, spec pipeline.Spec) *job {
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
		out[i.Index] = i.Image.Data
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
