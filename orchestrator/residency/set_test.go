package residency

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/stage"
)

// TestSet: components that are needed together are loaded one after another, the lease tells the edition of each and what the
// service's class takes, and all of them settle.
func TestSet(t *testing.T) {
	h := newHouse(t, 250, Options{})
	denoiser := h.stages[stage.KindDenoiser]
	need := Need{Kind: stage.KindDenoiser, Components: []string{"n/unet", "m/unet"}, Footprints: map[string]stage.Footprint{"": takes(20, 100, 100), "other": takes(500, 1, 1)}}
	lease, err := h.Acquire(t.Context(), AcquireRequest{Job: "job", Need: need})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]stage.Edition{"n/unet": {Stamp: "n/unet"}, "m/unet": {Stamp: "m/unet"}}
	if diff := cmp.Diff(want, lease.Editions); diff != "" || lease.Footprint.ScratchBytes != 20 {
		t.Errorf("%d bytes of scratch, %s", lease.Footprint.ScratchBytes, diff)
	}
	if used, components := h.used(), h.Snapshot().Stages[1].Components; used != 220 || !slices.Equal(components, need.Components) {
		t.Errorf("%d bytes are used, for %q", used, components)
	}
	lease.Settle(t.Context())
	if want := []string{"load n/unet", "load m/unet", "settle n/unet", "settle m/unet"}; !slices.Equal(denoiser.calls, want) {
		t.Errorf("calls %q, want %q", denoiser.calls, want)
	}
	if used := h.used(); used != 200 {
		t.Errorf("%d bytes are used, want 200", used)
	}
}

// TestCheckOfClasses: the largest device counts, and a need fits if any device holds what the class there takes.
func TestCheckOfClasses(t *testing.T) {
	h := newHouse(t, 150, Options{})
	k := stage.KindDenoiser
	h.Join("large", k, Device{"h", "gpu", 200}, h.stages[k], stage.Info{Planning: "other", Components: []stage.Component{{Name: "m/unet"}}}, h.Now())
	need := single(k, "m", 100, 40)
	for _, c := range []struct {
		other, budget int64 // scratch of the other class, 0 is not known there
	}{{other: 150, budget: 200}, {other: 0, budget: 150}, {other: 60, budget: 200}} {
		if delete(need.Footprints, "other"); c.other > 0 {
			need.Footprints["other"] = takes(c.other, 100)
		}
		if d, err := h.Check(need); err != nil || d.BudgetBytes != c.budget {
			t.Errorf("%+v: %v, %v", c, d, err)
		}
	}
	need.Footprints = map[string]stage.Footprint{"": takes(60, 100), "other": takes(170, 100)}
	var e *stage.Error
	if d, err := h.Check(need); !errors.As(err, &e) || e.Reason != stage.ModelDoesNotFit || e.Metadata["needed_bytes"] != "270" || d.BudgetBytes != 200 {
		t.Errorf("%v, %v", d, err)
	}
	if _, err := h.Acquire(t.Context(), AcquireRequest{Need: need}); stage.ReasonOf(err) != stage.ModelDoesNotFit {
		t.Errorf("Acquire says %v", err)
	}
	h.Join("endless", k, Device{"h", "host", 0}, h.stages[k], stage.Info{Components: []stage.Component{{Name: "m/unet"}}}, h.Now())
	if d, err := h.Check(need); err != nil || d.Name != "host" {
		t.Errorf("without a limit: %v, %v", d, err)
	}
	need.Footprints = map[string]stage.Footprint{"unknown": takes(1, 1)}
	if d, err := h.Check(need); err != nil || d != (Device{}) {
		t.Errorf("of a class that is not there: %v, %v", d, err)
	}
}
