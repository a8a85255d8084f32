package stageengine

import (
	"path/filepath"
	"testing"

	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/stage"
)

// TestNamesOfSamplers: a model's options know samplers and schedules by the names that people have for them, as many as a message may tell.
func TestNamesOfSamplers(t *testing.T) {
	_, denoiser, _ := open(t, filepath.Join(repo, "testdata/golden", "tiny-sd15"))
	recipe := denoiser.model("tiny-sd15").files.Recipes[0]
	samplers, _ := recipe.Option("sampler")
	for _, name := range []string{
		"DDIM", "Euler", "Euler a", "UniPC", "DEIS", "TCD", "LCM", "LMS", "Heun", "PLMS", "DPM++ 2M", "DPM++ 2M Karras", "DPM++ 2M SDE Exponential", "DPM++ 3M SDE", "DPM++ SDE", "DPM++ SDE Karras",
		"LMS Karras", "Euler Karras", "dpmpp_2m_sde_gpu", "euler_ancestral", "uni_pc", "DPMSolverMultistepScheduler", "euler_karras",
	} {
		want, err := sampler.Parse(name, "")
		named, others := samplers.Named(stage.TextOption(name))
		if err != nil || named.Text != want.Sampler || others["schedule"] != want.Schedule || samplers.Check("sampler", named) != nil {
			t.Errorf("%s: %v, %v, want %v, %v", name, named, others, want, err)
		}
	}
	schedules, _ := recipe.Option("schedule")
	for name, want := range map[string]string{"Karras": "karras", "Exponential": "exponential", "SGM Uniform": "sgm_uniform", "Align Your Steps": "align_your_steps", "Uniform": "normal", "beta": "beta"} {
		if named, _ := schedules.Named(stage.TextOption(name)); named.Text != want || schedules.Check("schedule", named) != nil {
			t.Errorf("%s: %v, want %s", name, named, want)
		}
	}
	if n := len(samplers.Aliases); n > 256 {
		t.Errorf("%d other names, more than are read of a stage", n)
	}
}
