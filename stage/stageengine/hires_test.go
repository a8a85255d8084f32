package stageengine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

const hiresGoldens = repo + "/testdata/golden/hires"

// hiresCase is a run of the goldens in two passes.
type hiresCase struct {
	goldenCase
	Scale      float64
	HiresSteps int `json:"hires_steps"`
}

func (c hiresCase) options() stage.Options {
	o := c.goldenCase.options(0)
	o["hires_scale"], o["hires_strength"] = stage.FloatOption(c.Scale), stage.FloatOption(c.Strength)
	if c.HiresSteps > 0 {
		o["hires_steps"] = stage.IntOption(int64(c.HiresSteps))
	}
	delete(o, "strength")
	return o
}

func hiresCases(t *testing.T) []hiresCase {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(hiresGoldens, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Runs []hiresCase }
	if err := json.Unmarshal(data, &index); err != nil || len(index.Runs) != 3 {
		t.Fatal(len(index.Runs), err)
	}
	return index.Runs
}

// hires is the recipe of a model in two passes.
func (s stages) hires(t *testing.T, model string) stage.Recipe {
	t.Helper()
	all := s[stage.KindDenoiser].model(model).files.Recipes
	i := slices.IndexFunc(all, func(r stage.Recipe) bool { return r.Task == "hires" })
	if i < 0 {
		t.Fatalf("%s has no recipe in two passes", model)
	}
	return all[i]
}

// TestHires: what two passes draw is what the reference draws by txt2img, Lanczos and img2img.
func TestHires(t *testing.T) {
	for _, c := range hiresCases(t) {
		s := openStages(t, filepath.Join(sdxlGoldens, c.Model))
		values, err := s.draw(t, s.hires(t, c.Model), c.options(), nil, c.Seed)
		if err != nil {
			t.Errorf("%s: %v", c.ID, err)
			continue
		}
		file, err := weights.OpenFile(filepath.Join(hiresGoldens, c.ID+".safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		reference, err := os.ReadFile(filepath.Join(hiresGoldens, c.ID+".png"))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"first": "latents", "last": "hires_latents"} {
			v, _ := values.Get(value)
			off := largestError(t, tensorOf(t, file, name), floats(t, v.Tensor))
			t.Logf("%s: %s is off by %.2g of the largest", c.ID, name, off)
			if !(off <= runTolerance) {
				t.Errorf("%s: %s is off by %.2g of the largest, allowed %g", c.ID, name, off, runTolerance)
			}
		}
		picture, _ := values.Get("image")
		samePicture(t, c.ID, picture.File.Data, reference, 1)
		_ = file.Close()
	}
}
