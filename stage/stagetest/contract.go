package stagetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/triptych-serving/triptych/stage"
)

// Subject is an implementation that the contract suite is run against.
type Subject struct {
	Kind stage.Kind
	// Open gives a fresh stage with nothing resident, which ends with the test. The script, when the
	// stage follows one, lets the suite stop work in the middle; nil leaves those checks out.
	Open func(t *testing.T) (stage.Stage, *Script)
	// Request is a turn that works, with one component where there is such a turn. A denoiser's has at least four steps, guidance above 1 and nothing else
	// that may be left out.
	Request stage.WorkRequest
	// Set is a turn that works with several components, and Units one whose values come in units. Zero leaves the checks out.
	Set, Units stage.WorkRequest
	// Adapted is the turn of Request with models in its slots, whose results depend on their numbers. Zero leaves the checks out.
	Adapted stage.WorkRequest
	// Broken is a model whose files cannot be used, and TooLarge one that never fits. Empty leaves the checks out.
	Broken, TooLarge string
	// Other works as the model of Request, and the stage has memory for the warm weights of the one, and not of both. Empty
	// leaves the checks out.
	Other string
}

const (
	// patience is for what has to end by itself.
	patience = 2 * time.Minute
	// glimpse is for what must not end while work is held: a right implementation waits it out.
	glimpse = 50 * time.Millisecond
)

// contract is the sentences of stage.Stage.
type contract struct{ Subject }

// name is the component that is loaded and evicted.
func (c contract) name() string { return c.Request.Components[0] }

// of is that of another model.
func (c contract) of(model string) string { return Of(model, c.Request).Components[0] }

// alone leaves out a check of how one component is held where the turn works with several: testSet has their limits.
func (c contract) alone(t *testing.T) {
	t.Helper()
	if len(c.Request.Components) > 1 {
		t.Skip("the turn works with several components")
	}
}

func (c contract) op() Op { return Op(c.Request.Turn) }

// work takes the turn; equal stages give equal results.
func (c contract) work(ctx context.Context, s stage.Stage) (stage.Result, error) {
	return s.Work(ctx, c.Request, stage.Observer{})
}

// turn is what the model says of the request's turn.
func (c contract) turn(t *testing.T, s stage.Stage) (stage.Recipe, stage.Turn) {
	t.Helper()
	for _, m := range info(t, s).Models {
		for _, r := range m.Recipes {
			r = r.Choose(c.Request.Options, func(model, part string) bool { return slices.Contains(c.Request.Components, model+"/"+part) })
			if turn, ok := r.Turn(c.Request.Turn); ok && m.Name == stage.ModelOf(c.name()) {
				return r, turn
			}
		}
	}
	t.Fatalf("no recipe of %q has the turn %q", c.name(), c.Request.Turn)
	panic("unreachable")
}

// plan asks for what the request takes.
func (c contract) plan(t *testing.T, s stage.Stage) stage.PlanRequest {
	t.Helper()
	recipe, turn := c.turn(t, s)
	return stage.PlanRequest{Turn: turn.Name, Components: c.Request.Components, Options: recipe.Shape(turn, c.Request.Options)}
}

// within is the footprint of the request's turn within a limit, which has to be known.
func (c contract) within(t *testing.T, s stage.Stage, limit int64) stage.Footprint {
	t.Helper()
	req := c.plan(t, s)
	req.LimitBytes = limit
	f, err := s.Plan(patient(t), req)
	if err != nil {
		t.Fatalf("Plan within %d: %v", limit, err)
	}
	return f
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// loaded opens a stage with the request's components resident.
func (c contract) loaded(t *testing.T) (stage.Stage, *Script) {
	t.Helper()
	s, script := c.Open(t)
	load(t, s, c.Request.Components...)
	return s, script
}

func load(t *testing.T, s stage.Stage, components ...string) {
	t.Helper()
	for _, name := range components {
		if err := s.Load(patient(t), stage.LoadRequest{Component: name}, nil); err != nil {
			t.Fatalf("Load of %s: %v", name, err)
		}
	}
}

// held opens a stage with the component resident that will stop at the first step of its work.
func (c contract) held(t *testing.T) (stage.Stage, *Script, *Gate) {
	t.Helper()
	s, script := c.loaded(t)
	if script == nil {
		t.Skip("the stage follows no script")
	}
	gate := script.Hold(c.op(), 1)
	t.Cleanup(gate.Release)
	return s, script, gate
}

// outcome is what a call gave.
type outcome struct {
	result stage.Result
	err    error
}

// start does the work in the background.
func (c contract) start(ctx context.Context, s stage.Stage) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		result, err := c.work(ctx, s)
		done <- outcome{result, err}
	}()
	return done
}

// await waits for a channel, as long as the test's patience lasts.
func await[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-patient(t).Done():
		t.Fatalf("waited too long for %s", what)
		panic("unreachable")
	}
}

// waits checks that a call does not return before something ends.
func waits(t *testing.T, call, what string, do func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), glimpse)
	defer cancel()
	if err := do(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%s did not wait for %s: %v", call, what, err)
	}
}

// evicting is an eviction of which the error alone matters.
func evicting(s stage.Stage, req stage.EvictRequest) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := s.Evict(ctx, req)
		return err
	}
}

// underway gives a stage whose work was under way during a call, and has ended well.
func (c contract) underway(t *testing.T, during func(s stage.Stage)) stage.Stage {
	t.Helper()
	s, _, gate := c.held(t)
	done := c.start(patient(t), s)
	await(t, "the work to begin", gate.Entered())
	during(s)
	gate.Release()
	if o := await(t, "the work to end", done); o.err != nil {
		t.Errorf("the work that was waited for: %v", o.err)
	}
	return s
}

// legal checks that err is one of the kinds of error a stage may give.
func legal(t *testing.T, err error) {
	t.Helper()
	var e *stage.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case !errors.As(err, &e):
		t.Errorf("an error is neither a *stage.Error nor a context's: %T: %v", err, err)
	case e.Reason == "" || e.Message == "":
		t.Errorf("an error lacks reason or message: %#v", e)
	}
}

// want checks that err has one of the reasons.
func want(t *testing.T, call string, err error, reasons ...stage.Reason) *stage.Error {
	t.Helper()
	legal(t, err)
	if err == nil || !slices.Contains(reasons, stage.ReasonOf(err)) {
		t.Fatalf("%s: got error %v (%s), expected %v", call, err, stage.ReasonOf(err), reasons)
	}
	var e *stage.Error
	errors.As(err, &e)
	return e
}

// wantNotFound checks that err names the models there are.
func (c contract) wantNotFound(t *testing.T, call string, err error) {
	t.Helper()
	e := want(t, call, err, stage.ModelNotFound)
	if model := stage.ModelOf(c.name()); !strings.Contains(e.Metadata["accepted"], model) {
		t.Errorf("%s: metadata accepted = %q does not list %q", call, e.Metadata["accepted"], model)
	}
}

// works takes a turn that has to succeed.
func works(t *testing.T, s stage.Stage, req stage.WorkRequest) stage.Result {
	t.Helper()
	result, err := s.Work(patient(t), req, stage.Observer{})
	if err != nil {
		t.Fatalf("Work with %v: %v", req.Options, err)
	}
	return result
}

// refuses takes a turn that has to fail for one of the reasons.
func refuses(t *testing.T, s stage.Stage, req stage.WorkRequest, what string, reasons ...stage.Reason) *stage.Error {
	t.Helper()
	_, err := s.Work(patient(t), req, stage.Observer{})
	return want(t, what, err, reasons...)
}

// empty checks that nothing is resident, and nothing left of what was.
func empty(t *testing.T, s stage.Stage) {
	t.Helper()
	if i := info(t, s); len(i.Resident) > 0 || taken(i) != 0 {
		t.Errorf("%v is resident and %d bytes are used, expected nothing", i.Resident, taken(i))
	}
}

// settled checks that nothing of work with a component is left, beside what was taken before.
func settled(t *testing.T, s stage.Stage, component string, before int64) {
	t.Helper()
	if err := s.Settle(patient(t), component); err != nil {
		t.Errorf("Settle of %q: %v", component, err)
	}
	if used := taken(info(t, s)); used != before {
		t.Errorf("%d bytes are used when work has settled, %d before it", used, before)
	}
}

func info(t *testing.T, s stage.Resident) stage.Info {
	t.Helper()
	i, err := s.Info(patient(t))
	if err != nil {
		t.Fatalf("Info: %v", err)
	}
	return i
}

// find is a component by its name.
func find(t *testing.T, s stage.Resident, name string) stage.Component {
	t.Helper()
	for _, c := range info(t, s).Components {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("Info does not list component %q", name)
	panic("unreachable")
}

func holds(i stage.Info, name string) bool {
	return slices.ContainsFunc(i.Resident, func(c stage.ResidentComponent) bool { return c.Name == name })
}

// together does n calls at once and waits for them.
func together(n int, call func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { call(i) })
	}
	wg.Wait()
}

func same(t *testing.T, what string, a, b any) {
	t.Helper()
	if diff := cmp.Diff(a, b, cmp.Comparer(bytes.Equal)); diff != "" {
		if len(diff) > 2000 {
			diff = diff[:2000] + "..."
		}
		t.Errorf("%s differ:\n%s", what, diff)
	}
}

// taken is what a stage has of the device for weights and scratch.
func taken(i stage.Info) int64 { return i.UsedBytes - i.OverheadBytes }

// nobody is no model, turn, option or value.
const nobody = "no-such-model"

// Contract checks every sentence of stage.Stage.
func Contract(t *testing.T, subject Subject) {
	c := contract{subject}
	type check = struct {
		name string
		run  func(*testing.T)
	}
	checks := []check{
		{"Info", c.testInfo},
		{"Plan", c.testPlan},
		{"Load", c.testLoad},
		{"LoadLimited", c.testLoadLimited},
		{"LoadRefused", c.testLoadRefused},
		{"LoadTogether", c.testLoadTogether},
		{"LoadCancelled", c.testLoadCancelled},
		{"LoadSettles", c.testLoadSettles},
		{"Evict", c.testEvict},
		{"EvictWaits", c.testEvictWaits},
		{"Keep", c.testKeep},
		{"KeepLimited", c.testKeepLimited},
		{"KeepWithin", c.testKeepWithin},
		{"KeepWaits", c.testKeepWaits},
		{"KeepTogether", c.testKeepTogether},
		{"WorkNeedsComponent", c.testWorkNeedsComponent},
		{"WorkCounted", c.testWorkCounted},
		{"WorkTogether", c.testWorkTogether},
		{"WorkCancelled", c.testWorkCancelled},
		{"Settle", c.testSettle},
		{"SettleWaits", c.testSettleWaits},
		{"Drain", c.testDrain},
		{"DrainWaits", c.testDrainWaits},
		{"Gives", c.testGives},
		{"Defaults", c.testDefaults},
		{"Unknown", c.testUnknown},
		{"Options", c.testOptions},
		{"Values", c.testValues},
	}
	switch c.Kind {
	case stage.KindEncoder:
		checks = append(checks, check{"Prompts", c.testPrompts})
	case stage.KindDenoiser:
		checks = append(
			checks, check{"Observed", c.testObserved}, check{"Seed", c.testSeed}, check{"Resume", c.testResume}, check{"NotObserved", c.testNotObserved},
			check{"CancelledByObserver", c.testCancelledByObserver}, check{"InvalidResume", c.testInvalidResume},
		)
	case stage.KindDecoder:
		checks = append(checks, check{"Formats", c.testFormats}, check{"Parameters", c.testParameters})
	}
	if len(c.Set.Components) > 1 {
		set := contract{subject}
		set.Request = c.Set
		checks = append(checks, check{"Set", set.testSet}, check{"SetWaits", set.testSetWaits})
	}
	if len(c.Adapted.Components) > 1 {
		adapted := contract{subject}
		adapted.Request = c.Adapted
		checks = append(checks, check{"Adapted", adapted.testAdapted}, check{"AdaptedSet", adapted.testSet}, check{"AdaptedWaits", adapted.testSetWaits})
	}
	if len(c.Units.Components) > 0 {
		units := contract{subject}
		units.Request = c.Units
		checks = append(checks, check{"Units", units.testUnits})
	}
	for _, check := range checks {
		t.Run(check.name, check.run)
	}
}
