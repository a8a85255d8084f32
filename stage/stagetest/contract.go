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
type Subject[S stage.Resident] struct {
	// Open gives a fresh stage with nothing resident, which ends with the test. The script, when the
	// stage follows one, lets the suite stop work in the middle; nil leaves those checks out.
	Open func(t *testing.T) (S, *Script)
	// Model works.
	Model string
	// Broken has files that cannot be used, and TooLarge never fits. Empty leaves the checks out.
	Broken, TooLarge string
	// Other works too, and the stage has memory for the warm weights of Model, and not of both. Empty leaves the checks out.
	Other string
}

const (
	// patience is for what has to end by itself.
	patience = 2 * time.Minute
	// glimpse is for what must not end while work is held: a right implementation waits it out.
	glimpse = 50 * time.Millisecond
)

// contract is what the three suites share: the sentences of stage.Resident.
type contract[S stage.Resident] struct {
	Subject[S]
	kind stage.Kind
	plan stage.PlanRequest
	op   Op
	// work is a valid request for this model; equal stages give equal results.
	work func(ctx context.Context, s S, model string) (any, error)
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// loaded opens a stage with Model resident.
func (c contract[S]) loaded(t *testing.T) (S, *Script) {
	t.Helper()
	s, script := c.Open(t)
	if err := s.Load(patient(t), stage.LoadRequest{Model: c.Model}, nil); err != nil {
		t.Fatalf("Load: %v", err)
	}
	return s, script
}

// held opens a stage with Model resident that will stop at the first step of its work.
func (c contract[S]) held(t *testing.T) (S, *Script, *Gate) {
	t.Helper()
	s, script := c.loaded(t)
	if script == nil {
		t.Skip("the stage follows no script")
	}
	gate := script.Hold(c.op, 1)
	t.Cleanup(gate.Release)
	return s, script, gate
}

// outcome is what a call gave.
type outcome struct {
	result any
	err    error
}

// start does the work in the background.
func (c contract[S]) start(ctx context.Context, s S) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		result, err := c.work(ctx, s, c.Model)
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
func (c contract[S]) wantNotFound(t *testing.T, call string, err error) {
	t.Helper()
	e := want(t, call, err, stage.ModelNotFound)
	if !strings.Contains(e.Metadata["accepted"], c.Model) {
		t.Errorf("%s: metadata accepted = %q does not list %q", call, e.Metadata["accepted"], c.Model)
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

// find is the component of a model.
func find(t *testing.T, s stage.Resident, model string) stage.Component {
	t.Helper()
	for _, c := range info(t, s).Models {
		if c.Model == model {
			return c
		}
	}
	t.Fatalf("Info does not list model %q", model)
	panic("unreachable")
}

func holds(i stage.Info, model string) bool {
	return slices.ContainsFunc(i.Resident, func(m stage.ResidentModel) bool { return m.Model == model })
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

const nobody = "no-such-model"

func (c contract[S]) run(t *testing.T) {
	for _, check := range []struct {
		name string
		run  func(*testing.T)
	}{
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
		{"WorkNeedsModel", c.testWorkNeedsModel},
		{"WorkCounted", c.testWorkCounted},
		{"WorkTogether", c.testWorkTogether},
		{"WorkCancelled", c.testWorkCancelled},
		{"Settle", c.testSettle},
		{"SettleWaits", c.testSettleWaits},
		{"Drain", c.testDrain},
		{"DrainWaits", c.testDrainWaits},
	} {
		t.Run(check.name, check.run)
	}
}
