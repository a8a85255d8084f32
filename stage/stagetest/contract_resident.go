package stagetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

func (c contract) testInfo(t *testing.T) {
	s, _ := c.Open(t)
	i := info(t, s)
	if i.Kind != c.Kind {
		t.Errorf("Kind = %v, expected %v", i.Kind, c.Kind)
	}
	if i.Host == "" || i.Device == "" || i.Planning == "" {
		t.Errorf("Host = %q and Device = %q do not name a memory, or Planning = %q no class", i.Host, i.Device, i.Planning)
	}
	if !slices.IsSortedFunc(i.Models, func(a, b stage.Model) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("Models are not sorted by name: %v", i.Models)
	}
	if !slices.IsSortedFunc(i.Components, func(a, b stage.Component) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("Components are not sorted by name: %v", i.Components)
	}
	if len(i.Resident) > 0 || taken(i) != 0 || i.Draining {
		t.Errorf("a fresh stage holds %v, uses %d bytes, drains: %v", i.Resident, taken(i), i.Draining)
	}
	if m := find(t, s, c.name()); m.Problem != "" || m.WeightsBytes <= 0 || m.Model != stage.ModelOf(m.Name) {
		t.Errorf("component %q of model %q: problem %q, weights of %d bytes", m.Name, m.Model, m.Problem, m.WeightsBytes)
	}
	recipe, _ := c.turn(t, s)
	for _, turn := range recipe.Turns {
		for _, name := range turn.Options {
			if _, ok := recipe.Option(name); !ok {
				t.Errorf("turn %q reads option %q, which the recipe lacks", turn.Name, name)
			}
		}
		for _, name := range turn.Components() {
			if turn.Kind == c.Kind {
				find(t, s, name)
			}
		}
	}
	if c.Broken != "" && find(t, s, c.of(c.Broken)).Problem == "" {
		t.Errorf("model %q has no problem", c.Broken)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Info(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Info with a cancelled context: %v", err)
	}
}

func (c contract) testPlan(t *testing.T) {
	s, _ := c.Open(t)
	ctx := patient(t)
	plan := c.plan(t, s)
	f := c.within(t, s, 0)
	var weights []stage.Weights
	for _, name := range c.Request.Components {
		bytes := find(t, s, name).WeightsBytes
		weights = append(weights, stage.Weights{Component: name, Bytes: bytes, WholeBytes: bytes})
	}
	same(t, "weights of the plan and of Info", f.Weights, weights)
	if f.ScratchBytes <= 0 {
		t.Errorf("Plan = %+v, expected some scratch", f)
	}
	empty(t, s)
	recipe, _ := c.turn(t, s)
	for name, v := range plan.Options {
		spec, _ := recipe.Option(name)
		with := func(v stage.Option) stage.PlanRequest {
			p := plan
			p.Options = maps.Clone(plan.Options)
			p.Options[name] = v
			return p
		}
		less, more := v, v
		switch {
		case v.Type == stage.Int && spec.Max >= float64(2*v.Int):
			more.Int *= 2
		case v.Type == stage.Float:
			less.Float, more.Float = spec.Min, spec.Max
		}
		small, err := s.Plan(ctx, with(less))
		large, err2 := s.Plan(ctx, with(more))
		if err != nil || err2 != nil || large.ScratchBytes < small.ScratchBytes {
			t.Errorf("Plan with %s of %v and %v: %+v and %+v, %v, %v", name, less, more, small, large, err, err2)
		}
		if spec.Unit != "pixels" {
			continue
		}
		for _, side := range []int64{0, -8, 1 << 40} {
			_, err := s.Plan(ctx, with(stage.IntOption(side)))
			want(t, "Plan of a wrong size", err, stage.SizeUnsupported)
		}
	}
	for name, change := range map[string]func(*stage.PlanRequest){
		"turn": func(p *stage.PlanRequest) { p.Turn = nobody }, "components": func(p *stage.PlanRequest) { p.Components = nil },
		"option": func(p *stage.PlanRequest) { p.Options = stage.Options{nobody: stage.IntOption(1)} },
	} {
		bad := plan
		change(&bad)
		_, err := s.Plan(ctx, bad)
		want(t, "Plan of another "+name, err, stage.InvalidField)
	}
	plan.Components = Of(nobody, c.Request).Components
	_, err := s.Plan(ctx, plan)
	c.wantNotFound(t, "Plan", err)
	if c.Broken != "" {
		plan.Components = Of(c.Broken, c.Request).Components
		_, err = s.Plan(ctx, plan)
		want(t, "Plan of a broken model", err, stage.ModelInvalid)
	}
}

// progress records what Load reports and checks it.
type progress struct{ loaded, total []int64 }

func (p *progress) add(loaded, total int64) {
	p.loaded, p.total = append(p.loaded, loaded), append(p.total, total)
}

func (p *progress) check(t *testing.T) {
	t.Helper()
	n := len(p.loaded)
	if n == 0 {
		return
	}
	if !slices.IsSorted(p.loaded) || p.loaded[0] < 0 || slices.Min(p.total) != slices.Max(p.total) || p.loaded[n-1] != p.total[n-1] {
		t.Errorf("progress is not monotone, or does not end at the total: %v of %v", p.loaded, p.total)
	}
}

func (c contract) testLoad(t *testing.T) {
	s, _ := c.Open(t)
	ctx := patient(t)
	for _, again := range []bool{false, true} {
		var (
			p    progress
			told stage.Edition
		)
		if err := s.Load(ctx, stage.LoadRequest{Component: c.name(), Edition: func(e stage.Edition) { told = e }}, p.add); err != nil {
			t.Fatalf("Load (again: %v): %v", again, err)
		}
		if want := find(t, s, c.name()).Edition; told != want {
			t.Errorf("Load (again: %v) told of edition %+v, Info of %+v", again, told, want)
		}
		p.check(t)
		if !again && len(p.loaded) == 0 {
			t.Errorf("Load made no progress")
		}
		i := info(t, s)
		same(t, "resident components", i.Resident, []stage.ResidentComponent{{Name: c.name(), WeightsBytes: find(t, s, c.name()).WeightsBytes}})
		if w := i.Resident[0].WeightsBytes; taken(i) < w || i.PeakBytes < i.UsedBytes {
			t.Errorf("weights of %d bytes, but used %d and peak %d", w, taken(i), i.PeakBytes)
		}
	}
	if err := s.Load(ctx, stage.LoadRequest{Component: c.name(), Generation: info(t, s).Generation}, nil); err != nil {
		t.Errorf("Load for the present generation, without progress: %v", err)
	}
}

// A limit is kept to, by Plan as by Load; what is resident already stays as it is; results are the same.
func (c contract) testLoadLimited(t *testing.T) {
	c.alone(t)
	s, _ := c.Open(t)
	ctx := patient(t)
	whole := c.within(t, s, 0)
	if whole.WholeBytes() != whole.WeightsBytes() {
		t.Fatalf("Plan = %+v", whole)
	}
	plan := func(limit int64) stage.Footprint {
		t.Helper()
		f := c.within(t, s, limit)
		if f.ScratchBytes != whole.ScratchBytes || f.WholeBytes() != whole.WeightsBytes() {
			t.Fatalf("Plan within %d = %+v; without a limit %+v", limit, f, whole)
		}
		return f
	}
	loaded := func(limit int64) {
		t.Helper()
		planned := plan(limit).WeightsBytes()
		if p := c.load(t, s, limit); p.total[0] != planned {
			t.Errorf("progress within %d is of %d bytes, planned %d", limit, p.total[0], planned)
		}
		c.states(t, s, planned, 0)
	}
	loaded(0)
	result := works(t, s, c.Request)
	evicts(t, s, c.name(), false, whole.WeightsBytes(), 0)
	loaded(whole.WeightsBytes())
	evicts(t, s, c.name(), false, whole.WeightsBytes(), 0)

	least := plan(1)
	if least.WeightsBytes() >= whole.WeightsBytes() {
		t.Fatalf("the least is %+v, all %+v", least, whole)
	}
	last := least.WeightsBytes()
	for i := range int64(5) {
		limit := least.WeightsBytes() + i*(whole.WeightsBytes()-1-least.WeightsBytes())/4
		f := plan(limit)
		if f.WeightsBytes() > limit || !reflect.DeepEqual(plan(f.WeightsBytes()), f) || f.WeightsBytes() < least.WeightsBytes() {
			t.Errorf("Plan within %d = %+v, within that %+v", limit, f, plan(f.WeightsBytes()))
		}
		last = max(last, f.WeightsBytes())
		loaded(limit)
		same(t, "results of limited and whole weights", works(t, s, c.Request), result)
		load(t, s, c.name())
		evicts(t, s, c.name(), false, f.WeightsBytes(), 0)
	}
	if last == least.WeightsBytes() {
		t.Errorf("no limit keeps more than the least, %d bytes", last)
	}
	e := want(t, "Load within too small a limit", s.Load(ctx, stage.LoadRequest{Component: c.name(), LimitBytes: least.WeightsBytes() - 1}, nil), stage.ModelDoesNotFit)
	if e.Metadata["needed_bytes"] != fmt.Sprint(least.WeightsBytes()) {
		t.Errorf("metadata of too small a limit: %v", e.Metadata)
	}
	empty(t, s)
}

func (c contract) testLoadRefused(t *testing.T) {
	s, _ := c.Open(t)
	load := func(model string) error { return s.Load(patient(t), stage.LoadRequest{Component: c.of(model)}, nil) }
	c.wantNotFound(t, "Load", load(nobody))
	if c.Broken != "" {
		want(t, "Load of a broken model", load(c.Broken), stage.ModelInvalid)
	}
	if c.TooLarge != "" {
		e := want(t, "Load of too large a model", load(c.TooLarge), stage.ModelDoesNotFit)
		for _, key := range []string{"stage", "needed_bytes", "available_bytes", "budget_bytes"} {
			if e.Metadata[key] == "" {
				t.Errorf("metadata %s is missing: %v", key, e.Metadata)
			}
		}
	}
	empty(t, s)
}

func (c contract) testLoadTogether(t *testing.T) {
	s, _ := c.Open(t)
	ctx := patient(t)
	together(4, func(int) {
		var p progress
		if err := s.Load(ctx, stage.LoadRequest{Component: c.name()}, p.add); err != nil {
			t.Errorf("Load: %v", err)
		}
		p.check(t)
	})
	if i := info(t, s); len(i.Resident) != 1 {
		t.Errorf("resident after loads at once: %v", i.Resident)
	}
	if c.evict(t, s) <= 0 {
		t.Errorf("Evict freed nothing")
	}
	empty(t, s)
}

func (c contract) testLoadCancelled(t *testing.T) {
	s, script := c.Open(t)
	ctx, cancel := context.WithCancel(patient(t))
	if script != nil {
		gate := script.Hold(OpLoad, 2)
		t.Cleanup(gate.Release)
		go func() {
			<-gate.Entered()
			cancel()
		}()
	} else {
		cancel()
	}
	if err := s.Load(ctx, stage.LoadRequest{Component: c.name()}, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("Load that was cancelled: %v", err)
	}
	// The stage may still be giving the memory back; Evict waits for that.
	evicts(t, s, c.name(), false, 0, 0)
	empty(t, s)
	load(t, s, c.name())
}

// testLoadSettles: Evict and Settle wait for a load that goes on although its caller has gone, and then nothing of it is left.
func (c contract) testLoadSettles(t *testing.T) {
	s, script := c.Open(t)
	if script == nil {
		t.Skip("the stage follows no script")
	}
	gate := script.Stall(OpLoad, 2)
	t.Cleanup(gate.Release)
	loading, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Load(loading, stage.LoadRequest{Component: c.name()}, nil) }()
	await(t, "the load to begin", gate.Entered())
	stop()
	waits(t, "Settle", "a cancelled load", func(ctx context.Context) error { return s.Settle(ctx, c.name()) })
	waits(t, "Evict", "a cancelled load", evicting(s, stage.EvictRequest{Component: c.name()}))
	gate.Release()
	evicts(t, s, c.name(), false, 0, 0)
	empty(t, s)
	if err := await(t, "the load to end", done); !errors.Is(err, context.Canceled) {
		t.Errorf("the load that was cancelled: %v", err)
	}
}

func (c contract) testEvict(t *testing.T) {
	s, _ := c.loaded(t)
	weights := find(t, s, c.name()).WeightsBytes
	if freed := c.evict(t, s); freed < weights {
		t.Errorf("Evict freed %d bytes, expected at least the weights, %d", freed, weights)
	}
	empty(t, s)
	for _, name := range []string{c.name(), nobody} {
		for _, keep := range []bool{false, true} {
			evicts(t, s, name, keep, 0, 0)
		}
	}
	load(t, s, c.Request.Components...)
}

func (c contract) testEvictWaits(t *testing.T) {
	s := c.underway(t, func(s stage.Stage) {
		waits(t, "Evict", "running work", evicting(s, stage.EvictRequest{Component: c.name()}))
	})
	c.evict(t, s)
	empty(t, s)
}
