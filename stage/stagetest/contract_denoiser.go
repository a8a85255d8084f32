package stagetest

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// diary is what an observer saw of work.
type diary struct {
	busy        atomic.Bool
	overlapped  bool
	events      []string // kinds, in order
	steps       []int
	done        []int
	previews    []stage.Values
	previewed   []int
	checkpoints []stage.Checkpoint
	units       stage.Values
}

func (d *diary) enter(kind string) func() {
	if !d.busy.CompareAndSwap(false, true) {
		d.overlapped = true
	}
	d.events = append(d.events, kind)
	return func() { d.busy.Store(false) }
}

// observer has no Unit: see units.
func (d *diary) observer() stage.Observer {
	return stage.Observer{
		Ready: func(steps int) {
			defer d.enter("ready")()
			d.steps = append(d.steps, steps)
		},
		Progress: func(done, steps int) {
			defer d.enter("progress")()
			d.done, d.steps = append(d.done, done), append(d.steps, steps)
		},
		Preview: func(done int, estimate stage.Values) {
			defer d.enter("preview")()
			d.previewed, d.previews = append(d.previewed, done), append(d.previews, estimate)
		},
		Checkpoint: func(c stage.Checkpoint) {
			defer d.enter("checkpoint")()
			d.checkpoints = append(d.checkpoints, c)
		},
	}
}

// check checks what has to hold of all work that began after so many steps.
func (d *diary) check(t *testing.T, begun int) {
	t.Helper()
	if d.overlapped {
		t.Errorf("the observer was called from two goroutines at once")
	}
	if len(d.events) == 0 || d.events[0] != "ready" || slices.Contains(d.events[1:], "ready") {
		t.Fatalf("ready is not the first and only the first event: %v", d.events)
	}
	total := d.steps[0]
	if slices.Min(d.steps) != total || slices.Max(d.steps) != total {
		t.Errorf("the number of steps changes: %v", d.steps)
	}
	if n := len(d.done); n == 0 || d.done[0] <= begun || d.done[n-1] != total || !increasing(d.done) {
		t.Errorf("progress of steps %d to %d: %v", begun+1, total, d.done)
	}
	if !slices.IsSorted(d.previewed) || (len(d.previewed) > 0 && d.previewed[len(d.previewed)-1] > total) {
		t.Errorf("previews after %v of %d steps", d.previewed, total)
	}
}

func increasing(v []int) bool {
	for i := range v[1:] {
		if v[i] >= v[i+1] {
			return false
		}
	}
	return true
}

// samplers are requests with each sampler there is.
func (c contract) samplers(t *testing.T, s stage.Stage) (requests []stage.WorkRequest) {
	recipe, _ := c.turn(t, s)
	spec, _ := recipe.Option("sampler")
	for _, name := range spec.Choices {
		requests = append(requests, with(c.Request, spec.Name, stage.TextOption(name)))
	}
	return append(requests, c.Request)
}

func (c contract) testObserved(t *testing.T) {
	s, _ := c.loaded(t)
	_, turn := c.turn(t, s)
	for _, req := range c.samplers(t, s) {
		req.PreviewEveryNSteps, req.CheckpointEveryNSteps = 2, 1
		var d diary
		result, err := s.Work(patient(t), req, d.observer())
		if err != nil {
			t.Fatalf("Work with %v: %v", req.Options, err)
		}
		d.check(t, 0)
		gives(t, turn, result.Values)
		if steps := int(req.Options["steps"].Int); d.steps[0] < steps {
			t.Errorf("%d evaluations for %d steps", d.steps[0], steps)
		}
		if len(d.previews) == 0 || len(d.checkpoints) == 0 {
			t.Errorf("%d previews and %d checkpoints of %d steps", len(d.previews), len(d.checkpoints), d.steps[0])
		}
		for _, p := range d.previews {
			gives(t, turn, p)
		}
	}
}

func (c contract) testSeed(t *testing.T) {
	s, _ := c.loaded(t)
	latents := func(seed uint64) string {
		req := c.Request
		req.Seed = seed
		r := works(t, s, req)
		return string(r.Values[0].Tensor.Data)
	}
	first := latents(math.MaxUint64)
	if latents(math.MaxUint64) != first {
		t.Errorf("the same seed gives different latents")
	}
	if latents(7) == first {
		t.Errorf("different seeds give the same latents")
	}
}

// testResume resumes on another stage from every checkpoint.
func (c contract) testResume(t *testing.T) {
	s, _ := c.loaded(t)
	replica, _ := c.loaded(t)
	for _, req := range c.samplers(t, s) {
		c.resume(t, s, replica, req)
	}
}

func (c contract) resume(t *testing.T, s, replica stage.Stage, req stage.WorkRequest) {
	t.Helper()
	req.CheckpointEveryNSteps = 1
	var whole diary
	expected, err := s.Work(patient(t), req, whole.observer())
	if err != nil {
		t.Fatalf("Work: %v", err)
	}
	for _, checkpoint := range whole.checkpoints {
		if checkpoint.Step < 1 || checkpoint.Step > whole.steps[0] || len(checkpoint.Values) == 0 {
			t.Fatalf("a checkpoint after %d steps has %d values", checkpoint.Step, len(checkpoint.Values))
		}
		if checkpoint.Step == whole.steps[0] {
			continue
		}
		rest := req
		rest.Resume = &checkpoint
		var resumed diary
		got, err := replica.Work(patient(t), rest, resumed.observer())
		if err != nil {
			t.Fatalf("Work from step %d of %v: %v", checkpoint.Step, req.Options, err)
		}
		resumed.check(t, checkpoint.Step)
		if resumed.steps[0] != whole.steps[0] {
			t.Errorf("resumed at %d, %v has %d steps in all, before %d", checkpoint.Step, req.Options, resumed.steps[0], whole.steps[0])
		}
		same(t, "results of work that was resumed and of whole work", got, expected)
	}
}

func (c contract) testNotObserved(t *testing.T) {
	s, _ := c.loaded(t)
	plain := works(t, s, c.Request)
	req := c.Request
	req.PreviewEveryNSteps, req.CheckpointEveryNSteps = 1, 1
	unseen := works(t, s, req)
	same(t, "results with and without previews and checkpoints", plain, unseen)
	var d diary
	if _, err := s.Work(patient(t), c.Request, d.observer()); err != nil {
		t.Fatalf("Work: %v", err)
	}
	if len(d.previews)+len(d.checkpoints) > 0 {
		t.Errorf("%d previews and %d checkpoints that nobody asked for", len(d.previews), len(d.checkpoints))
	}
}

func (c contract) testCancelledByObserver(t *testing.T) {
	s, _ := c.loaded(t)
	before := taken(info(t, s))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	calls := 0
	_, err := s.Work(ctx, c.Request, stage.Observer{Progress: func(int, int) {
		calls++
		cancel()
	}})
	if !errors.Is(err, context.Canceled) || calls > 2 {
		t.Errorf("cancelled after the first evaluation: %v after %d", err, calls)
	}
	settled(t, s, c.name(), before)
}

func (c contract) testInvalidResume(t *testing.T) {
	s, _ := c.loaded(t)
	req := c.Request
	req.CheckpointEveryNSteps = 1
	var d diary
	if _, err := s.Work(patient(t), req, d.observer()); err != nil || len(d.checkpoints) == 0 {
		t.Fatalf("Work: %d checkpoints, %v", len(d.checkpoints), err)
	}
	good := d.checkpoints[0]
	misnamed := slices.Clone(good.Values)
	misnamed[0].Name = "nothing_known"
	small := slices.Clone(good.Values)
	small[0] = zeros(small[0].Name, 1, 1, 1, 1)
	file := slices.Clone(good.Values)
	file[0] = stage.Value{Name: file[0].Name, File: Photo(8, 8)}
	for name, checkpoint := range map[string]stage.Checkpoint{
		"negative": {Step: -1, Values: good.Values},
		"beyond":   {Step: d.steps[0] + 1, Values: good.Values},
		"empty":    {Step: good.Step},
		"misnamed": {Step: good.Step, Values: misnamed},
		"small":    {Step: good.Step, Values: small},
		"file":     {Step: good.Step, Values: file},
	} {
		t.Run(name, func(t *testing.T) {
			bad := c.Request
			bad.Resume = &checkpoint
			refuses(t, s, bad, "Work from a checkpoint that is "+name, stage.TensorInvalid, stage.InvalidField)
		})
	}
}

// testUnits: values in units are told of as they are finished, in order, or are part of the result; work that is resumed gives
// the same ones.
func (c contract) testUnits(t *testing.T) {
	s, _ := c.loaded(t)
	whole, err := c.work(patient(t), s)
	if err != nil || len(whole.Values) < 2 {
		t.Fatalf("Work without an observer gives %d units, %v", len(whole.Values), err)
	}
	for i, v := range whole.Values {
		if v.Name != whole.Values[0].Name || v.Unit != i || v.Units != len(whole.Values) {
			t.Errorf("unit %d is %s, %d of %d", i, v.Name, v.Unit, v.Units)
		}
	}
	var d diary
	observer := d.observer()
	observer.Unit = func(v stage.Value) {
		defer d.enter("unit")()
		d.units = append(d.units, v)
	}
	seen, err := s.Work(patient(t), c.Request, observer)
	if err != nil || len(seen.Values) > 0 {
		t.Errorf("the result has %d units that the observer was given, %v", len(seen.Values), err)
	}
	d.check(t, 0)
	same(t, "units that were told of and of a result", d.units, whole.Values)
	if last := d.events[len(d.events)-1]; slices.Index(d.events, "unit") == len(d.events)-len(d.units) && last == "unit" {
		t.Errorf("no unit is told of before all are finished: %v", d.events)
	}
	replica, _ := c.loaded(t)
	c.resume(t, s, replica, c.Request)
}
