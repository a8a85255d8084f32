package sampler

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/config/configtest"
)

// parse is ParseConfig of a class that the file itself names.
func parse(data []byte) (Config, error) {
	var file struct {
		Class string `json:"_class_name"`
	}
	if json.Unmarshal(strictJSON(data), &file) != nil {
		file.Class = "DDIMScheduler"
	}
	return ParseConfig(data, file.Class)
}

func TestParseConfigNamesItsOwnSampler(t *testing.T) {
	for _, c := range [][2]string{
		{`{"_class_name":"DDIMScheduler"}`, "ddim"},
		{`{"_class_name":"DDPMScheduler"}`, "ddpm"},
		{`{"_class_name":"PNDMScheduler","skip_prk_steps":true}`, "pndm"},
		{`{"_class_name":"LMSDiscreteScheduler"}`, "lms"},
		{`{"_class_name":"HeunDiscreteScheduler"}`, "heun"},
		{`{"_class_name":"EulerDiscreteScheduler"}`, "euler"},
		{`{"_class_name":"EulerAncestralDiscreteScheduler"}`, "euler_a"},
		{`{"_class_name":"DPMSolverMultistepScheduler"}`, "dpmpp_2m"},
		{`{"_class_name":"DPMSolverMultistepScheduler","algorithm_type":"sde-dpmsolver++"}`, "dpmpp_2m_sde"},
		{`{"_class_name":"DPMSolverMultistepScheduler","algorithm_type":"sde-dpmsolver++","solver_order":3}`, "dpmpp_3m_sde"},
		{`{"_class_name":"DPMSolverSDEScheduler"}`, "dpmpp_sde"},
		{`{"_class_name":"DEISMultistepScheduler","algorithm_type":"deis","solver_type":"logrho"}`, "deis"},
		{`{"_class_name":"TCDScheduler"}`, "tcd"},
		{`{"_class_name":"UniPCMultistepScheduler"}`, "unipc"},
		{`{"_class_name":"LCMScheduler"}`, "lcm"},
	} {
		cfg, err := parse([]byte(c[0]))
		if err != nil || cfg.Sampler() != c[1] {
			t.Errorf("%s: sampler %q, %v, want %q", c[0], cfg.Sampler(), err, c[1])
			continue
		}
		if s, err := New("", cfg, 3); err != nil || s.Name() != c[1] {
			t.Errorf("%s: %v", c[0], err)
		}
	}
}

func TestParseConfigErrors(t *testing.T) {
	for _, c := range []struct{ data, key string }{
		{`[]`, ""},
		{`{"_class_name":"DDIMScheduler"`, ""},
		{`{"_class_name":null}`, "_class_name"},
		{`{"_class_name":3}`, "_class_name"},
		{`{"_class_name":"DDIMScheduler","_use_default_values":"steps_offset"}`, "_use_default_values"},
		{`{"_class_name":"DDIMScheduler","thresholding":true}`, "thresholding"},
		{`{"_class_name":"DDIMScheduler","prediction_type":"flow_prediction"}`, "prediction_type"},
		{`{"_class_name":"DDIMScheduler","beta_schedule":"sigmoid"}`, "beta_schedule"},
		{`{"_class_name":"DDIMScheduler","num_train_timesteps":1}`, "num_train_timesteps"},
		{`{"_class_name":"DDIMScheduler","num_train_timesteps":1e9}`, "num_train_timesteps"},
		{`{"_class_name":"DDIMScheduler","steps_offset":"1"}`, "steps_offset"},
		{`{"_class_name":"DDIMScheduler","beta_start":Infinity}`, "beta_start"},
		{`{"_class_name":"DDIMScheduler","beta_end":NaN}`, "beta_end"},
		{`{"_class_name":"DDIMScheduler","timestep_spacing":"karras"}`, "timestep_spacing"},
		{`{"_class_name":"DDIMScheduler","trained_betas":[0.1,0.2]}`, "trained_betas"},
		{`{"_class_name":"DDIMScheduler","num_train_timesteps":2,"trained_betas":[0.1,1.5]}`, "trained_betas"},
		{`{"_class_name":"DDIMScheduler","clip_sample":"yes"}`, "clip_sample"},
		{`{"_class_name":"DDPMScheduler","variance_type":"learned_range"}`, "variance_type"},
		{`{"_class_name":"PNDMScheduler"}`, "skip_prk_steps"},
		{`{"_class_name":"PNDMScheduler","skip_prk_steps":true,"prediction_type":"sample"}`, "prediction_type"},
		{`{"_class_name":"EulerDiscreteScheduler","use_exponential_sigmas":"yes"}`, "use_exponential_sigmas"},
		{`{"_class_name":"EulerDiscreteScheduler","use_karras_sigmas":true,"use_beta_sigmas":true}`, "use_beta_sigmas"},
		{`{"_class_name":"EulerDiscreteScheduler","interpolation_type":"log_linear"}`, "interpolation_type"},
		{`{"_class_name":"EulerDiscreteScheduler","timestep_type":"continuous"}`, "timestep_type"},
		{`{"_class_name":"EulerDiscreteScheduler","use_karras_sigmas":true,"sigma_min":0.02}`, "sigma_min"},
		{`{"_class_name":"EulerDiscreteScheduler","final_sigmas_type":"one"}`, "final_sigmas_type"},
		{`{"_class_name":"DPMSolverMultistepScheduler","algorithm_type":"dpmsolver"}`, "algorithm_type"},
		{`{"_class_name":"DPMSolverMultistepScheduler","solver_type":"heun"}`, "solver_type"},
		{`{"_class_name":"DPMSolverMultistepScheduler","solver_order":3}`, "solver_order"},
		{`{"_class_name":"DPMSolverMultistepScheduler","lambda_min_clipped":-5.1}`, "lambda_min_clipped"},
		{`{"_class_name":"UniPCMultistepScheduler","use_beta_sigmas":true,"sigma_min":0.02}`, "sigma_min"},
		{`{"_class_name":"UniPCMultistepScheduler","disable_corrector":[0]}`, "disable_corrector"},
		{`{"_class_name":"LCMScheduler","original_inference_steps":0}`, "original_inference_steps"},
	} {
		var bad config.Errors
		cfg, err := parse([]byte(c.data))
		if err == nil {
			_, err = New("", cfg, 1)
		}
		if !errors.As(err, &bad) || bad[0].Key != c.key {
			t.Errorf("%s: %v", c.data, err)
		}
	}
}

// A model whose own scheduler cannot be used has the samplers that can, and says so where it is asked for its own.
func TestOwnSchedulerThatCannotBeUsed(t *testing.T) {
	for _, c := range []struct {
		class, data string
		without     []string // samplers
		says        string
	}{
		{"KDPM2DiscreteScheduler", `{"_class_name":"DDIMScheduler"}`, nil, "KDPM2DiscreteScheduler cannot be used (the class is not known)"},
		{"PNDMScheduler", `{}`, nil, "skip_prk_steps"},
		{"LCMScheduler", `{"original_inference_steps":0}`, []string{"lcm", "tcd"}, "original_inference_steps"},
		{"DDIMScheduler", `{"thresholding":true}`, []string{"ddim", "ddpm", "dpmpp_2m", "dpmpp_2m_karras", "dpmpp_2m_sde", "dpmpp_3m_sde", "deis", "unipc", "lcm", "tcd"}, "thresholding = true"},
	} {
		cfg, err := ParseConfig([]byte(c.data), c.class)
		if err != nil {
			t.Errorf("%s: %v", c.class, err)
			continue
		}
		want := slices.DeleteFunc(Names(), func(name string) bool { return slices.Contains(c.without, name) })
		if cfg.Sampler() != "" || !slices.Equal(cfg.Samplers(), want) {
			t.Errorf("%s: own sampler %q, samplers %v, want %v", c.class, cfg.Sampler(), cfg.Samplers(), want)
		}
		var own *OwnError
		if _, err := New("", cfg, 4); !errors.As(err, &own) || own.Class != c.class || !slices.Equal(own.Known, want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want an OwnError that says %q", c.class, err, c.says)
		}
		for _, name := range want {
			if _, err := New(name, cfg, 4); err != nil {
				t.Errorf("%s: %v", c.class, err)
			}
		}
	}
}

// steps_offset and clip_sample, as the pipeline changes them: in its own scheduler always, for another one where they are
// written. testdata/golden/wild has the pictures.
func TestKeysThatThePipelineChanges(t *testing.T) {
	for _, c := range []struct {
		class, data, sampler string
		offset               int
		clip                 float32
	}{
		{"DDIMScheduler", `{}`, "ddim", 1, 0},
		{"DDIMScheduler", `{"steps_offset":0,"clip_sample":true}`, "", 1, 0},
		{"DDIMScheduler", `{"steps_offset":null}`, "ddim", 1, 0},
		{"DDIMScheduler", `{}`, "ddpm", 0, 1},
		{"DDIMScheduler", `{"clip_sample_range":2}`, "ddpm", 0, 2},
		{"DDIMScheduler", `{"steps_offset":0}`, "euler", 1, 0},
		{"DDIMScheduler", `{"clip_sample":true,"clip_sample_range":2}`, "ddpm", 0, 0},
		{"DDIMScheduler", `{"clip_sample":true}`, "heun", 0, 0},
		{"DDIMScheduler", `{"clip_sample":true}`, "lcm", 0, 0},
		{"DDIMScheduler", `{"steps_offset":0,"clip_sample":true,"_use_default_values":["steps_offset","clip_sample"]}`, "ddpm", 0, 1},
		{"DDIMScheduler", `{"steps_offset":0,"_use_default_values":["steps_offset"]}`, "ddim", 1, 0},
		{"EulerDiscreteScheduler", `{"clip_sample":true}`, "ddim", 0, 0},
		{"EulerDiscreteScheduler", `{}`, "euler_karras", 0, 0},
		{"EulerDiscreteScheduler", `{}`, "ddim", 0, 1},
		{"KDPM2DiscreteScheduler", `{"steps_offset":3}`, "ddim", 1, 1},
		{"KDPM2DiscreteScheduler", `{}`, "ddim", 0, 1},
	} {
		cfg, err := ParseConfig([]byte(c.data), c.class)
		if err != nil {
			t.Fatal(err)
		}
		e, err := cfg.entry(c.sampler)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := cfg.settings(e); err != nil || s.offset != c.offset || s.clip != c.clip {
			t.Errorf("%s %s with %q: steps_offset %d, clips at %g, %v, want %d and %g", c.class, c.data, c.sampler, s.offset, s.clip, err, c.offset, c.clip)
		}
	}
}

func TestEveryKeyOfTheReference(t *testing.T) {
	for _, c := range classes() {
		configtest.Walk(t, c.name, func(key string) (string, error) {
			base := `"skip_prk_steps": true, `
			if key == "skip_prk_steps" {
				base = ""
			}
			cfg, err := ParseConfig([]byte(`{`+base+`"`+key+`": `+configtest.Nonsense+`}`), c.name)
			if err == nil {
				_, err = New("", cfg, 4)
			}
			if err != nil {
				return "", err
			}
			e, err := entryNamed(cfg.sampler)
			if err != nil {
				return "", err
			}
			s, err := cfg.settings(e)
			return fmt.Sprintf("%+v", s), err
		})
	}
}

// What is in no list, and no note of diffusers, is told of.
func TestUnknownKeys(t *testing.T) {
	cfg, err := ParseConfig([]byte(`{"_class_name": "DDIMScheduler", "_note": 1, "skip_prk_steps": true, "eta": 0, "sample_max_value": 1, "steps_offset": 1}`), "DDIMScheduler")
	if err != nil || !slices.Equal(cfg.Unknown(), []string{"eta", "skip_prk_steps"}) {
		t.Errorf("%v, %v", cfg.Unknown(), err)
	}
}

// DPM-Solver++ never sees the solver_type of a class that has replaced it by its own.
func TestSolverTypeOfOtherClasses(t *testing.T) {
	const data = `{"solver_type":"heun"}`
	for class, ok := range map[string]bool{"UniPCMultistepScheduler": true, "DEISMultistepScheduler": true, "DDIMScheduler": false} {
		cfg, err := ParseConfig([]byte(data), class)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New("dpmpp_2m", cfg, 4); (err == nil) != ok {
			t.Errorf("%s: %v", class, err)
		}
	}
}

// A sampler drops the keys its class does not know and minds those it does, whatever class the config is of.
func TestSettingsOfOtherClasses(t *testing.T) {
	cfg := withClass(t, json.RawMessage(`{
		"use_karras_sigmas": true, "sigma_min": null, "use_beta_sigmas": 3, "solver_type": "heun",
		"clip_sample": true, "clip_sample_range": 2, "lambda_min_clipped": -1e9, "use_flow_sigmas": null
	}`), "DDIMScheduler")
	var bad config.Errors
	for name, key := range map[string]string{"euler": "use_beta_sigmas", "dpmpp_2m": "use_beta_sigmas", "unipc": "use_beta_sigmas"} {
		if _, err := New(name, cfg, 4); !errors.As(err, &bad) || bad[0].Key != key {
			t.Errorf("%s: %v, want a complaint about %s", name, err, key)
		}
	}
	for name, clip := range map[string]float32{"ddim": 0, "ddpm": 0, "lcm": 0, "pndm": 0, "euler_a": 0} {
		s, err := New(name, cfg, 4)
		if err != nil {
			t.Fatal(err)
		}
		if s.levels[0].clip != clip {
			t.Errorf("%s clips at %v, want %v", name, s.levels[0].clip, clip)
		}
	}
	euler, err := New("euler", withClass(t, json.RawMessage(`{"use_karras_sigmas":true}`), "DDIMScheduler"), 7)
	if err != nil {
		t.Fatal(err)
	}
	named, err := New("euler_karras", withClass(t, json.RawMessage(`{}`), "EulerDiscreteScheduler"), 7)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(euler.sigmas, named.sigmas) {
		t.Errorf("use_karras_sigmas gives %v, euler_karras %v", euler.sigmas, named.sigmas)
	}
}

// What Python's json module writes for infinities, as in many published DPM-Solver++ configs.
func TestParseConfigTakesBareInfinity(t *testing.T) {
	data := `{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "note": "-Infinity \" NaN", "flow_shift": NaN}`
	if cfg, err := parse([]byte(data)); err != nil || cfg.Problem() != nil {
		t.Error(cfg.Problem(), err)
	}
	var m map[string]any
	if err := json.Unmarshal(strictJSON([]byte(data)), &m); err != nil || m["note"] != `-Infinity " NaN` || m["flow_shift"] != "NaN" {
		t.Errorf("%v, %v", m, err)
	}
}

// final_sigmas_type and the cosine schedule have no golden runs; these are their definitions.
func TestFinalSigma(t *testing.T) {
	for _, name := range []string{"euler", "euler_karras", "dpmpp_2m", "dpmpp_2m_karras", "dpmpp_2m_sde", "unipc"} {
		s, err := New(name, withClass(t, json.RawMessage(`{"final_sigmas_type":"sigma_min"}`), "DDIMScheduler"), 20)
		if err != nil {
			t.Fatal(err)
		}
		beta := 0.0001
		want := math.Sqrt(beta / (1 - beta))
		if got := float64(s.sigmas[20]); math.Abs(got-want) > 1e-3*want {
			t.Errorf("%s ends at sigma %v, want %v", name, got, want)
		}
	}
}

func TestCosineSchedule(t *testing.T) {
	cfg := withClass(t, json.RawMessage(`{"beta_schedule":"squaredcos_cap_v2"}`), "DDIMScheduler")
	e, err := entryNamed("ddim")
	if err != nil {
		t.Fatal(err)
	}
	set, err := cfg.settings(e)
	if err != nil {
		t.Fatal(err)
	}
	bar := func(x float64) float64 { return math.Pow(math.Cos((x+0.008)/1.008*math.Pi/2), 2) }
	for i, got := range set.alphasCumprod(0)[:990] {
		if want := bar(float64(i+1)/1000) / bar(0); math.Abs(float64(got)-want) > 1e-6 {
			t.Fatalf("ᾱ of timestep %d is %v, want %v", i, got, want)
		}
	}
	for _, name := range Names() {
		if _, err := New(name, cfg, 20); err != nil {
			t.Error(err)
		}
	}
}

// The start latents and timesteps of whole generations, with the scheduler_config.json beside them.
func TestGoldenPipelines(t *testing.T) {
	files, err := filepath.Glob("../../testdata/golden/*/golden/index.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no pipelines: %v", err)
	}
	for _, file := range files {
		dir := filepath.Dir(filepath.Dir(file))
		data, err := os.ReadFile(filepath.Join(dir, "scheduler", "scheduler_config.json"))
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := parse(data)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var index struct {
			Runs []struct {
				Sampler, File string
				Steps         int
				Seed          uint64
				Timesteps     []float64
			}
		}
		if err := json.Unmarshal(raw, &index); err != nil {
			t.Fatal(err)
		}
		for _, run := range index.Runs {
			s, err := New(run.Sampler, cfg, run.Steps)
			if err != nil {
				t.Errorf("%s %s: %v", dir, run.File, err)
				continue
			}
			near := func(a, b float64) bool { return math.Abs(a-b) <= 2e-6*b }
			if !slices.EqualFunc(s.timesteps, run.Timesteps, near) {
				t.Errorf("%s %s: timesteps %v, want %v", dir, run.File, s.timesteps, run.Timesteps)
			}
			want := readArrays(t, filepath.Join(filepath.Dir(file), run.File))["latents.0"].data
			got := s.Start(Noise(run.Seed, 0, len(want))).Latents
			for i, w := range want {
				if math.Abs(float64(got[i]-w)) > 2e-7*math.Abs(float64(w)) {
					t.Errorf("%s %s %s: start latent %d is %v, want %v", dir, run.File, run.Sampler, i, got[i], w)
					break
				}
			}
		}
	}
}

func FuzzConfig(f *testing.F) {
	for _, c := range classes() {
		f.Add([]byte(`{"_class_name":"`+c.name+`","skip_prk_steps":true,"timestep_spacing":"trailing","beta_schedule":"scaled_linear"}`), uint8(3))
	}
	f.Add([]byte(`{"_class_name":"DDIMScheduler","num_train_timesteps":3,"trained_betas":[0,1,0.5],"rescale_betas_zero_snr":true,"use_karras_sigmas":true}`), uint8(2))
	f.Add([]byte(`{"_class_name":"EulerDiscreteScheduler","prediction_type":"sample","final_sigmas_type":"sigma_min","steps_offset":77,"lambda_min_clipped":-Infinity}`), uint8(9))
	for i := range Schedules() {
		f.Add([]byte(`{"_class_name":"DEISMultistepScheduler","beta_schedule":"scaled_linear","beta_start":0.00085,"beta_end":0.012}`), uint8(24*i+7))
	}
	f.Fuzz(func(t *testing.T, data []byte, steps uint8) {
		cfg, err := parse(data)
		if err != nil {
			return
		}
		if schedule := int(steps / 24); schedule < len(Schedules()) { // else none
			cfg = cfg.For(StepsOfSD()).Tuned(Tuning{Schedule: Schedules()[schedule]})
		}
		for _, name := range append(Names(), "") {
			s, err := New(name, cfg, int(steps%24))
			if err != nil {
				var tuning *TuningError
				var stepsErr *StepsError
				var schedule *ScheduleError
				var bad config.Errors
				var own *OwnError
				if !errors.As(err, &tuning) && !errors.As(err, &stepsErr) && !errors.As(err, &own) && !errors.As(err, &schedule) && !errors.As(err, &bad) {
					t.Fatalf("%s: an error of no known type: %v", name, err)
				}
				continue
			}
			if s.Evaluations() < 1 || s.Evaluations() > 2*int(steps) {
				t.Fatalf("%s: %d evaluations for %d steps", name, s.Evaluations(), steps)
			}
			st := s.Start(Noise(1, 0, 2))
			for range s.Evaluations() {
				if st, err = s.Restore(st.Step, st.Tensors()); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				st = evaluate(s, st, NewSource(1).Draw)
			}
		}
	})
}

// A model of other noise levels than ᾱ is not drawn with by samplers that would take them for those.
func TestOtherNoise(t *testing.T) {
	for _, class := range []string{"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler"} {
		for _, parse := range []func([]byte, string) (Config, error){ParseConfig, ParseWritten} {
			c, err := parse([]byte(`{"sigma_data": 0.5}`), class)
			var unknown *UnknownError
			if !errors.As(err, &unknown) || unknown.Name != class {
				t.Errorf("%s: samplers %v, %v", class, c.Samplers(), err)
			}
		}
	}
}
