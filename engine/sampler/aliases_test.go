package sampler

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestParse: names of other programs are those that people mean by them.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, schedule string
		want           Choice
	}{
		{"Euler a", "", Choice{Sampler: "euler_a"}},
		{"Euler a", "Automatic", Choice{Sampler: "euler_a"}},
		{"DPM++ 2M Karras", "", Choice{Sampler: "dpmpp_2m_karras"}},
		{"DPM++ 2M", "Karras", Choice{Sampler: "dpmpp_2m_karras"}},
		{"DPM++ 2M", "Automatic", Choice{Sampler: "dpmpp_2m_karras"}},
		{"DPM++ 2M", "", Choice{Sampler: "dpmpp_2m"}},
		{"DPM++ SDE Karras", "", Choice{"dpmpp_sde", Karras}},
		{"DPM++ 3M SDE", "Exponential", Choice{"dpmpp_3m_sde", Exponential}},
		{"dpm++ 3m sde exponential", "", Choice{"dpmpp_3m_sde", Exponential}},
		{"DPM++ 2M SDE", "SGM Uniform", Choice{"dpmpp_2m_sde", SGMUniform}},
		{"euler", "Align Your Steps", Choice{"euler", AlignYourSteps}},
		{"UniPC", "beta", Choice{"unipc", Beta}},
		{"uni_pc", "", Choice{Sampler: "unipc"}},
		{"euler_ancestral", "karras", Choice{"euler_a", Karras}},
		{"EulerDiscreteScheduler", "karras", Choice{Sampler: "euler_karras"}},
		{"DPMSolverMultistepScheduler", "", Choice{Sampler: "dpmpp_2m"}},
		{"PLMS", "", Choice{Sampler: "pndm"}},
		{"DDIM", "", Choice{Sampler: "ddim"}},
		{"LCM", "", Choice{Sampler: "lcm"}},
		{"ddim", "normal", Choice{Sampler: "ddim"}},
		{"dpmpp_2m", "Uniform", Choice{"dpmpp_2m", Normal}},
		{"euler_karras", "karras", Choice{Sampler: "euler_karras"}},
	} {
		if got, err := Parse(c.name, c.schedule); err != nil || got != c.want {
			t.Errorf("%q with %q: %+v, %v, want %+v", c.name, c.schedule, got, err, c.want)
		}
	}
	var unknown *UnknownError
	for _, c := range [][2]string{{"DPM fast", ""}, {"euler", "Turbo"}, {"", ""}} {
		if _, err := Parse(c[0], c[1]); !errors.As(err, &unknown) {
			t.Errorf("%q: %v, want an UnknownError", c, err)
		}
	}
	var wrong *TuningError
	if _, err := Parse("DPM++ 2M Karras", "Exponential"); !errors.As(err, &wrong) {
		t.Errorf("%v, want a TuningError", err)
	}
}

// TestAliases: aliases name samplers and schedules that there are, and none has the name of another.
func TestAliases(t *testing.T) {
	for name, want := range Aliases() {
		if got, err := Parse(strings.ToUpper(name), ""); err != nil || got != want || slices.Contains(Names(), name) || !slices.Contains(Names(), want.Sampler) {
			t.Errorf("%q stands for %v, and is parsed as %v, %v", name, want, got, err)
		}
	}
	for name, schedule := range ScheduleAliases() {
		if !slices.Contains(Schedules(), schedule) || slices.Contains(Schedules(), name) {
			t.Errorf("%q stands for %q", name, schedule)
		}
	}
	if len(Aliases()) < 80 || len(ScheduleAliases()) < 3 {
		t.Errorf("%d and %d aliases", len(Aliases()), len(ScheduleAliases()))
	}
}
