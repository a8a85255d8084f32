package sampler

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// tunedCase is a run of the reference with what a request says of its sampler.
type tunedCase struct {
	goldenCase
	Schedule, Table string
	Eta             *float64
	Original        int
}

func (c tunedCase) config(t testing.TB, class string) Config {
	t.Helper()
	steps := StepsOfSD()
	if c.Table == "sdxl" {
		steps = StepsOfXL()
	}
	return withClass(t, c.Config, class).For(steps).Tuned(Tuning{Schedule: c.Schedule, Eta: c.Eta, OriginalSteps: c.Original})
}

func tunedCases(t testing.TB) (cases []tunedCase, classes map[string]string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(goldenDir, "tuned.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Cases    []tunedCase
		Samplers map[string]struct{ Scheduler string }
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	classes = map[string]string{}
	for name, s := range index.Samplers {
		classes[name] = s.Scheduler
	}
	return index.Cases, classes
}

// TestTunedTrajectories: further samplers, every schedule and option give what the reference does.
func TestTunedTrajectories(t *testing.T) {
	cases, classes := tunedCases(t)
	arrays := readArrays(t, goldenDir+"/tuned.safetensors")
	type worst struct {
		cases        int
		state, sigma float64
	}
	table := map[string]*worst{}
	for _, c := range cases {
		s, err := New(c.Sampler, c.config(t, classes[c.Sampler]), c.Steps)
		if err != nil {
			t.Errorf("%s: %v", c.Key, err)
			continue
		}
		w := table[c.Sampler]
		if w == nil {
			w = &worst{}
			table[c.Sampler] = w
		}
		w.cases++
		const tolerance = 2e-6 // of levels, see TestGoldenTrajectories, and of what is between their logarithms
		if len(s.timesteps) != len(c.Timesteps) {
			t.Errorf("%s: timesteps %v, want %v", c.Key, s.timesteps, c.Timesteps)
			continue
		}
		for i, want := range c.Timesteps {
			if got := s.timesteps[i]; math.Abs(got-want) > 1e-3 { // a level's error, at the steepest place of the table
				t.Errorf("%s: timestep %d is %v, want %v", c.Key, i, got, want)
			}
		}
		if s.sigmas != nil && c.Sampler != "dpmpp_sde" { // which has the levels between steps too
			for i, want := range c.Sigmas {
				if d := math.Abs(float64(s.sigmas[i]) - want); d > tolerance*want {
					t.Errorf("%s: sigma %d = %v, want %v", c.Key, i, s.sigmas[i], want)
				} else if want > 0 {
					w.sigma = max(w.sigma, d/want)
				}
			}
		}
		if d := math.Abs(float64(s.initSigma) - c.InitSigma); d > tolerance*c.InitSigma {
			t.Errorf("%s: begins with %v, want %v", c.Key, s.initSigma, c.InitSigma)
		}
		want := arrays[c.Key]
		n := len(want.data) / want.shape[0]
		var largest, off float64
		st, noise := s.Start(Noise(goldenSeed, 0, n)), NewSource(goldenSeed)
		for i := 0; ; i++ {
			for j, v := range st.Latents {
				ref := float64(want.data[i*n+j])
				largest, off = max(largest, math.Abs(ref)), max(off, math.Abs(float64(v)-ref))
			}
			if i == s.Evaluations() {
				break
			}
			st = evaluate(s, st, noise.Draw)
		}
		if off /= largest; !(off <= 1e-5) {
			t.Errorf("%s: error %.2g of the largest value %.3g", c.Key, off, largest)
		}
		w.state = max(w.state, off)
	}
	t.Logf("%-16s %5s  %-12s  %s", "sampler", "cases", "latents", "sigmas (errors relative to the largest value)")
	total := 0
	for _, name := range Names() {
		if w := table[name]; w != nil {
			total += w.cases
			t.Logf("%-16s %5d  %-12.2g  %.2g", name, w.cases, w.state, w.sigma)
		}
	}
	if total != len(cases) || total < 370 {
		t.Errorf("%d cases compared of %d", total, len(cases))
	}
}

// TestTunedResumes: a run stored and restored before any evaluation ends in the same bits, and a part of one is what it says.
func TestTunedResumes(t *testing.T) {
	cases, classes := tunedCases(t)
	const n = 36
	for _, c := range cases {
		s, err := NewPart(c.Sampler, c.config(t, classes[c.Sampler]), c.Steps, max(1, c.Steps-1))
		if err != nil {
			t.Errorf("%s: %v", c.Key, err)
			continue
		}
		noise := NewSource(goldenSeed)
		st := s.Start(Noise(goldenSeed, 0, n))
		states := []State{st}
		for st.Step < s.Evaluations() {
			st = evaluate(s, st, noise.Draw)
			states = append(states, st)
		}
		for _, from := range states {
			again, err := s.Restore(from.Step, from.Tensors())
			if err != nil {
				t.Fatalf("%s: %v", c.Key, err)
			}
			for again.Step < s.Evaluations() {
				again = evaluate(s, again, noise.Draw)
			}
			if !slices.Equal(again.Latents, st.Latents) {
				t.Errorf("%s: other latents from evaluation %d on", c.Key, from.Step)
			}
		}
	}
}

// TestTuningErrors: what a sampler does not take is refused by the field.
func TestTuningErrors(t *testing.T) {
	config := withClass(t, json.RawMessage(`{}`), "PNDMScheduler").For(StepsOfSD())
	number := func(v float64) *float64 { return &v }
	for _, c := range []struct {
		sampler string
		tuning  Tuning
		field   string
	}{
		{"euler", Tuning{Schedule: "cosine"}, "schedule"},
		{"ddim", Tuning{Schedule: Karras}, "schedule"},
		{"lcm", Tuning{Schedule: SGMUniform}, "schedule"},
		{"euler_karras", Tuning{Schedule: Exponential}, "schedule"},
		{"euler", Tuning{Eta: number(0.5)}, "eta"},
		{"ddim", Tuning{Eta: number(1.5)}, "eta"},
		{"ddim", Tuning{Eta: number(math.NaN())}, "eta"},
		{"euler", Tuning{OriginalSteps: 50}, "original_steps"},
		{"lcm", Tuning{OriginalSteps: -1}, "original_steps"},
		{"lcm", Tuning{OriginalSteps: 1001}, "original_steps"},
	} {
		_, err := New(c.sampler, config.Tuned(c.tuning), 4)
		var wrong *TuningError
		if !errors.As(err, &wrong) || wrong.Field != c.field || wrong.Sampler != c.sampler {
			t.Errorf("%s with %+v: %v, want a TuningError of %s", c.sampler, c.tuning, err, c.field)
		}
	}
	if _, err := New("euler", withClass(t, json.RawMessage(`{}`), "PNDMScheduler").Tuned(Tuning{Schedule: AlignYourSteps}), 4); err == nil {
		t.Error("a model without levels has align_your_steps")
	}
	if _, err := New("euler_karras", config.Tuned(Tuning{Schedule: Karras}), 4); err != nil {
		t.Error(err)
	}
}

// TestOriginalSteps: the steps of a distillation are those that the config says, unless a request says others.
func TestOriginalSteps(t *testing.T) {
	for _, c := range []struct {
		data  string
		said  int
		times []float64
	}{
		{`{}`, 0, []float64{999, 499}},
		{`{"original_inference_steps":7}`, 0, []float64{993, 567}},
		{`{"original_inference_steps":7}`, 50, []float64{999, 499}},
	} {
		for name, class := range map[string]string{"lcm": lcmClass, "tcd": tcdClass} {
			cfg, err := ParseConfig([]byte(c.data), class)
			if err != nil || cfg.Sampler() != name {
				t.Fatalf("%s: %q, %v, %v", class, cfg.Sampler(), cfg.Problem(), err)
			}
			s, err := New("", cfg.Tuned(Tuning{OriginalSteps: c.said}), 2)
			if err != nil || !slices.Equal(s.timesteps, c.times) {
				t.Errorf("%s %s with %d: %v, want %v", name, c.data, c.said, s.timesteps, c.times)
			}
			var steps *StepsError
			if _, err := New("", cfg, 8); c.said == 0 && (err == nil) != (c.data == `{}`) || err != nil && (!errors.As(err, &steps) || steps.Max != 7) {
				t.Errorf("%s %s: 8 steps: %v", name, c.data, err)
			}
		}
	}
}
