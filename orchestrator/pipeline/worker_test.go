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

// TestText: values that would be read as several are quoted, and tasks that are not the usual one told; numbers read back as they were.
func TestText(t *testing.T) {
	options := []stage.OptionSpec{{Name: "nets", Type: stage.Text}, {Name: "share", Type: stage.Float}}
	for want, c := range map[string]Spec{
		"a, b\nSeed: 1, Model: m, nets: \"x:0.8,y\"":   {Model: "m", Recipe: stage.Recipe{Task: "generate", Options: options}, Options: stage.Options{"nets": stage.TextOption("x:0.8,y")}},
		"a, b\nSeed: 1, Model: \"m, 2\", task: hires":  {Model: "m, 2", Recipe: stage.Recipe{Task: "hires"}},
		"a, b\nSeed: 1, Model: m, share: 0.1":          {Model: "m", Recipe: stage.Recipe{Task: "generate", Options: options}, Options: stage.Options{"share": stage.FloatOption(float64(float32(0.1)))}},
		"a, b\nSeed: 1, Model: m, share: 0.35":         {Model: "m", Recipe: stage.Recipe{Task: "generate", Options: options}, Options: stage.Options{"share": stage.FloatOption(0.35)}},
		"a, b\nSeed: 1, Model: m, share: 0.1234567891": {Model: "m", Recipe: stage.Recipe{Task: "generate", Options: options}, Options: stage.Options{"share": stage.FloatOption(0.1234567891)}},
	} {
		if c.Options == nil {
			c.Options = stage.Options{}
		}
		c.Options["prompt"], c.Seed = stage.TextOption("a, b"), 1
		if got := c.text(0, ""); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
