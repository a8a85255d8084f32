package pipeline

import (
	"testing"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestUnitToldAgain: work that was resumed gives units again; each is kept once, for the step that takes it, until that has ended.
func TestUnitToldAgain(t *testing.T) {
	spec := Spec{Recipe: stagetest.Recipe(stagetest.Film), Options: stage.Options{"frames": stage.IntOption(2)}, ImageCount: 1}
	job := NewJob(spec, nil)
	w := newWorker(&Pipeline{}, "job", job, Plan{}, nil)
	denoise := w.steps[1]
	if len(w.steps) != 4 || denoise.Turn.Name != "denoise" {
		t.Fatalf("the steps are %+v", w.steps)
	}
	for _, unit := range []int{0, 1, 0, 1} {
		w.hand(denoise, stage.Value{Name: "latents", Unit: unit, Units: 2})
	}
	for unit := range 2 {
		if got := w.taken(w.steps[2+unit]); len(got) != 2 || got[0].Unit != unit || got[1].Name != parameters {
			t.Errorf("unit %d is decoded of %+v", unit, got)
		}
	}
	if len(job.Values) != 2 {
		t.Errorf("%d values are kept", len(job.Values))
	}
}
