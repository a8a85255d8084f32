package fleet_test

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/stage"
)

// TestPlanByClass: one service of each class is asked, once until its files change; a class that refuses is left out.
func TestPlanByClass(t *testing.T) {
	const kind = stage.KindDenoiser
	wide, twin := fleettest.NewService(kind, "wide"), fleettest.NewService(kind, "twin")
	wide.Script.Threads(4)
	twin.Script.Threads(4)
	r := fleettest.New(t, append(fleettest.Trio(), wide, twin)...)
	var asked [2]atomic.Int32 // of the narrow class and the wide one
	var refuses [2]atomic.Bool
	for _, s := range r.Services {
		class := 0
		if s == wide || s == twin {
			class = 1
		}
		s.Before = func(context.Context, string) error {
			asked[class].Add(1)
			if refuses[class].Load() {
				return stage.Errorf(stage.SizeUnsupported, "scripted")
			}
			return nil
		}
		s.Start()
	}
	r.Known(t)
	wide.Looks(t, 2)
	twin.Looks(t, 2)
	plan := func(latent int64, classes []string, narrow, wide int32) map[string]stage.Footprint {
		t.Helper()
		got, err := r.Fleet.Plan(fleettest.Soon(t), kind, tiny(kind, latent), nil, nil)
		if err != nil || !slices.Equal(slices.Sorted(maps.Keys(got)), classes) || asked[0].Load() != narrow || asked[1].Load() != wide {
			t.Fatalf("%v, %v, asked %d and %d times, want %d and %d", got, err, asked[0].Load(), asked[1].Load(), narrow, wide)
		}
		return got
	}
	all := []string{"fake, 1 thread", "fake, 4 threads"}
	got := plan(8, all, 1, 1)
	if got[all[1]].ScratchBytes != 4*got[all[0]].ScratchBytes {
		t.Errorf("planned %+v", got)
	}
	plan(8, all, 1, 1)
	plan(6, all, 2, 2)
	twin.Edit(func(i *stage.Info) { i.Components[0].Stamp = "changed" })
	twin.Looks(t, 2)
	plan(8, all, 2, 3)

	limited := func(limits map[string]int64) map[string]stage.Footprint {
		got, err := r.Fleet.Plan(fleettest.Soon(t), kind, tiny(kind, 8), limits, nil)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := limited(map[string]int64{all[1]: 1000}); len(got) != 1 || got[all[1]].WeightsBytes() != 1000 || got[all[1]].WholeBytes() != 4000 {
		t.Errorf("within a limit of one class: %+v", got)
	}
	refuses[1].Store(true)
	plan(4, all[:1], 3, 5)
	refuses[0].Store(true)
	if _, err := r.Fleet.Plan(fleettest.Soon(t), kind, tiny(kind, 2), nil, nil); stage.ReasonOf(err) != stage.SizeUnsupported {
		t.Errorf("when all refuse: %v", err)
	}
}
