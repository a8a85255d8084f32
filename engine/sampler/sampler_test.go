package sampler

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/engine/config"
)

// goldenCase is one run of the reference, see make_golden.py.
type goldenCase struct {
	Key       string          `json:"key"`
	Sampler   string          `json:"sampler"`
	Steps     int             `json:"steps"`
	Config    json.RawMessage `json:"config"`
	Timesteps []float64       `json:"timesteps"`
	Sigmas    []float64       `json:"sigmas"`
	InitSigma float64         `json:"init_noise_sigma"`
}

const goldenSeed = 1234

func goldenCases(t testing.TB) (cases []goldenCase, classes map[string]string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(goldenDir, "samplers.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Cases    []goldenCase `json:"cases"`
		Samplers map[string]struct {
			Scheduler string `json:"scheduler"`
		} `json:"samplers"`
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

// toy is the network of the goldens.
func toy(dst, x []float32, t float64) {
	s := 0.2 * float32(math.Sin(float64(float32(t)/150)))
	for i, v := range x {
		tanh := float32(math.Tanh(float64(v)))
		dst[i] = float32(0.6*tanh) + float32(s*float32(math.Cos(float64(3*v))))
	}
}

// evaluate is one turn of a denoising loop.
func evaluate(s *Sampler, st State, noise NoiseFunc) State {
	in, prediction := make([]float32, len(st.Latents)), make([]float32, len(st.Latents))
	s.ModelInput(st, in)
	toy(prediction, in, s.Timestep(st.Step))
	return s.Step(st, prediction, noise)
}

// withClass is a golden case's config as a file has it.
func withClass(t testing.TB, raw json.RawMessage, class string) Config {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	m["_class_name"] = class
	m["skip_prk_steps"] = true
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := ParseConfig(data, class)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestGoldenTrajectories(t *testing.T) {
	cases, classes := goldenCases(t)
	arrays := readArrays(t, goldenDir+"/samplers.safetensors")
	type worst struct {
		cases        int
		state, sigma float64
		key          string
	}
	table := map[string]*worst{}
	for _, c := range cases {
		s, err := New(c.Sampler, withClass(t, c.Config, classes[c.Sampler]), c.Steps)
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
		// One in five of the reference's sigmas is an ulp off, as if its square roots were not correctly rounded.
		// Rescaling to zero SNR passes ᾱ through one more root, and an ulp of ᾱ is 1e-6 of a small sigma.
		tolerance := 1e-6
		if s.sigmas != nil && bytes.Contains(c.Config, []byte("rescale_betas_zero_snr")) {
			tolerance = 2e-6
		}
		// Whole timesteps are equal. Those of Karras sigmas carry the error of the sigmas.
		sameTimestep := func(a, b float64) bool {
			return a == b || c.Sampler == "euler_karras" && math.Abs(a-b) <= tolerance*b
		}
		if !slices.EqualFunc(s.timesteps, c.Timesteps, sameTimestep) {
			t.Errorf("%s: timesteps %v, want %v", c.Key, s.timesteps, c.Timesteps)
			continue
		}
		for i, want := range append(slices.Clone(c.Sigmas), c.InitSigma) {
			got := s.initSigma
			if i < len(c.Sigmas) {
				got = s.sigmas[i]
			}
			if d := math.Abs(float64(got) - want); d > tolerance*want {
				t.Errorf("%s: sigma %d = %v, want %v", c.Key, i, got, want)
			} else if want > 0 {
				w.sigma = max(w.sigma, d/want)
			}
		}
		want := arrays[c.Key]
		n := len(want.data) / want.shape[0]
		if want.shape[0] != s.Evaluations()+1 {
			t.Errorf("%s: %d states, want %d", c.Key, s.Evaluations()+1, want.shape[0])
			continue
		}
		var largest, off float64
		st := s.Start(Noise(goldenSeed, 0, n))
		noise := NewSource(goldenSeed)
		for i := 0; ; i++ {
			for j, v := range st.Latents {
				ref := float64(want.data[i*n+j])
				largest = max(largest, math.Abs(ref))
				off = max(off, math.Abs(float64(v)-ref))
			}
			if i == s.Evaluations() {
				break
			}
			st = evaluate(s, st, noise.Draw)
		}
		if off /= largest; !(off <= 1e-5) {
			t.Errorf("%s %s: error %.2g of the largest value %.3g", c.Key, c.Config, off, largest)
		}
		if off >= w.state {
			w.state, w.key = off, c.Key
		}
	}
	t.Logf("%-16s %5s  %-12s  %-12s %s", "sampler", "cases", "latents", "sigmas", "worst case (errors relative to the largest value)")
	total := 0
	for _, name := range Names() {
		if w := table[name]; w != nil {
			total += w.cases
			t.Logf("%-16s %5d  %-12.2g  %-12.2g %s", name, w.cases, w.state, w.sigma, w.key)
		}
	}
	if total != 260 {
		t.Errorf("%d cases compared, expected 260", total)
	}
}

// A run stored and restored before any evaluation ends in the same bits.
func TestResumeIsBitExact(t *testing.T) {
	cases, classes := goldenCases(t)
	const n = 36
	for _, c := range cases {
		s, err := New(c.Sampler, withClass(t, c.Config, classes[c.Sampler]), c.Steps)
		if err != nil {
			t.Fatal(err)
		}
		noise := NewSource(5)
		states := []State{s.Start(Noise(5, 0, n))}
		for range s.Evaluations() {
			states = append(states, evaluate(s, states[len(states)-1], noise.Draw))
		}
		for from, stored := range states {
			tensors := stored.Tensors()
			slices.Reverse(tensors)
			for i := range tensors {
				tensors[i].Data = slices.Clone(tensors[i].Data)
			}
			st, err := s.Restore(from, tensors)
			if err != nil {
				t.Fatalf("%s step %d: %v", c.Key, from, err)
			}
			for i := from; i < s.Evaluations(); i++ {
				st = evaluate(s, st, NewSource(5).Draw)
				if !slices.Equal(st.Latents, states[i+1].Latents) {
					t.Fatalf("%s restored at %d differs after evaluation %d", c.Key, from, i)
				}
			}
		}
	}
}

// Step leaves its argument alone: taking a step twice gives the same state.
func TestStepIsPure(t *testing.T) {
	cfg := withClass(t, json.RawMessage(`{}`), "DDIMScheduler")
	for _, name := range Names() {
		s, err := New(name, cfg, 6)
		if err != nil {
			t.Fatal(err)
		}
		st := s.Start(Noise(1, 0, 16))
		for range s.Evaluations() {
			first := evaluate(s, st, NewSource(1).Draw)
			for _, a := range append(first.Tensors(), st.Tensors()...) {
				if len(a.Data) != 16 {
					t.Fatalf("%s: array %s has %d elements", name, a.Name, len(a.Data))
				}
			}
			again := evaluate(s, st, NewSource(1).Draw)
			for i, a := range first.Tensors() {
				if b := again.Tensors()[i]; a.Name != b.Name || !slices.Equal(a.Data, b.Data) {
					t.Fatalf("%s: step %d is not repeatable in %s", name, st.Step, a.Name)
				}
			}
			st = first
		}
	}
}

// Each stochastic sampler asks for draw i+1 at evaluation i, and for none where the reference has no
// use for one.
func TestDraws(t *testing.T) {
	want := map[string][]int{"ddpm": {1, 2, 3}, "euler_a": {1, 2, 3}, "dpmpp_2m_sde": {1, 2, 3}, "dpmpp_3m_sde": {1, 2, 3}, "dpmpp_sde": {1, 2, 3, 4, 5, 6}, "tcd": {1, 2, 3}, "lcm": {1, 2, 3}}
	cfg := withClass(t, json.RawMessage(`{"timestep_spacing":"leading"}`), "DDIMScheduler")
	for _, name := range Names() {
		s, err := New(name, cfg, 4)
		if err != nil {
			t.Fatal(err)
		}
		var draws []int
		st := s.Start(make([]float32, 4))
		for range s.Evaluations() {
			st = evaluate(s, st, func(draw int, _ []float32) { draws = append(draws, draw) })
		}
		if !slices.Equal(draws, want[name]) {
			t.Errorf("%s draws %v, want %v", name, draws, want[name])
		}
	}
}

// With a network that knows the answer, Denoised gives it at every level, whatever it predicts.
func TestDenoised(t *testing.T) {
	const clean, noise = 0.3, -0.7
	for _, kind := range []prediction{"epsilon", "v_prediction", "sample"} {
		cfg := withClass(t, json.RawMessage(fmt.Sprintf(`{"prediction_type":%q}`, kind)), "DDIMScheduler")
		for _, name := range Names() {
			s, err := New(name, cfg, 5)
			if err != nil {
				var bad config.Errors
				if kind == "sample" && (name == "pndm" || name == "euler_a" || name == "dpmpp_sde") && errors.As(err, &bad) {
					continue
				}
				t.Fatal(err)
			}
			for i, l := range s.levels {
				alpha, sigma := float64(l.alpha), float64(l.sigma)
				x := alpha*clean + sigma*noise
				if l.unscaled {
					x = clean + sigma*noise
					alpha = 1 / math.Sqrt(1+sigma*sigma)
					sigma *= alpha
				}
				p := map[prediction]float64{"epsilon": noise, "v_prediction": alpha*noise - sigma*clean, "sample": clean}[kind]
				dst := make([]float32, 1)
				s.Denoised(State{Step: i, Latents: []float32{float32(x)}}, []float32{float32(p)}, dst)
				if math.Abs(float64(dst[0])-clean) > 1e-4 {
					t.Errorf("%s %s: clean sample at evaluation %d is %v, want %v", name, kind, i, dst[0], clean)
				}
			}
		}
	}
}

func TestNewErrors(t *testing.T) {
	plain := withClass(t, json.RawMessage(`{}`), "DDIMScheduler")
	var unknown *UnknownError
	if _, err := New("eulr", plain, 5); !errors.As(err, &unknown) || !slices.Equal(unknown.Known, Names()) {
		t.Errorf("unknown name: %v", err)
	}
	for _, c := range []struct {
		name, config string
		steps, limit int
	}{
		{"ddim", `{}`, 0, 999},
		{"ddim", `{}`, -3, 999},
		{"ddim", `{}`, 1000, 999},
		{"ddim", `{"timestep_spacing":"trailing"}`, 1001, 1000},
		{"ddpm", `{}`, 1001, 1000},
		{"pndm", `{"steps_offset":0}`, 1000, 999},
		{"euler", `{"num_train_timesteps":100}`, 101, 100},
		{"lcm", `{}`, 51, 50},
		{"dpmpp_2m", `{"timestep_spacing":"leading"}`, 1000, 999},
	} {
		var steps *StepsError
		cfg := withClass(t, json.RawMessage(c.config), "DDIMScheduler")
		if _, err := New(c.name, cfg, c.steps); !errors.As(err, &steps) || steps.Min != 1 || steps.Max != c.limit {
			t.Errorf("%s %s %d: %v", c.name, c.config, c.steps, err)
		}
		if limit, err := cfg.MaxSteps(c.name); err != nil || limit != c.limit {
			t.Errorf("%s %s: at most %d steps, %v, want %d", c.name, c.config, limit, err, c.limit)
		}
		if _, err := New(c.name, cfg, c.limit); err != nil {
			t.Errorf("%s %s %d: %v", c.name, c.config, c.limit, err)
		}
	}
	for _, c := range []struct {
		name, config string
		steps        int
	}{
		{"lcm", `{"num_train_timesteps":49}`, 1},
		{"ddim", `{"clip_sample":false,"rescale_betas_zero_snr":true,"timestep_spacing":"trailing"}`, 4}, // epsilon at ᾱ = 0
		{"euler", `{"beta_start":0,"timestep_spacing":"leading"}`, 4},                                    // no noise at 0
		{"dpmpp_2m", `{"num_train_timesteps":4,"trained_betas":[0.1,0,0,0]}`, 3},                         // all steps at one level
		{"lms", `{"beta_start":0,"beta_end":0}`, 4},
	} {
		var schedule *ScheduleError
		if _, err := New(c.name, withClass(t, json.RawMessage(c.config), "DDIMScheduler"), c.steps); !errors.As(err, &schedule) {
			t.Errorf("%s %s %d: %v", c.name, c.config, c.steps, err)
		}
	}
}

func TestRestoreErrors(t *testing.T) {
	s, err := New("unipc", withClass(t, json.RawMessage(`{}`), "DDIMScheduler"), 6)
	if err != nil {
		t.Fatal(err)
	}
	a := func(name string, n int) NamedArray { return NamedArray{Name: name, Data: make([]float32, n)} }
	for _, c := range []struct {
		step    int
		tensors []NamedArray
	}{
		{-1, []NamedArray{a("latents", 4)}},
		{7, []NamedArray{a("latents", 4)}},
		{0, nil},
		{0, []NamedArray{a("latents", 0)}},
		{0, []NamedArray{a("latents", 4), a("start", 4)}},
		{1, []NamedArray{a("latents", 4)}},
		{1, []NamedArray{a("latents", 4), a("start", 4), a("clean.2", 4)}},
		{1, []NamedArray{a("latents", 4), a("start", 4), a("clean.1", 5)}},
		{1, []NamedArray{a("latents", 4), a("start", 4), a("start", 4)}},
		{6, []NamedArray{a("latents", 4), a("start", 4), a("clean.1", 4), a("clean.2", 4)}},
	} {
		var bad *RestoreError
		if _, err := s.Restore(c.step, c.tensors); !errors.As(err, &bad) || bad.Step != c.step {
			t.Errorf("step %d, %d arrays: %v", c.step, len(c.tensors), err)
		}
	}
}

// Every number of steps works with the configs in use, for every sampler that takes that many.
func TestEveryNumberOfSteps(t *testing.T) {
	cfg := withClass(t, json.RawMessage(`{"beta_schedule":"scaled_linear","beta_start":0.00085,"beta_end":0.012,"timestep_spacing":"trailing","prediction_type":"v_prediction"}`), "DDIMScheduler")
	for _, name := range Names() {
		limit, err := cfg.MaxSteps(name)
		if err != nil {
			t.Fatal(err)
		}
		for steps := 1; steps <= limit; steps += 1 + steps/50 {
			s, err := New(name, cfg, steps)
			if err != nil {
				t.Errorf("%d steps: %v", steps, err)
			} else if s.Evaluations() < steps {
				t.Errorf("%s: %d evaluations for %d steps", name, s.Evaluations(), steps)
			}
		}
	}
}

// A part of a schedule begins with a step, whatever was before, and restores states of its own evaluations alone.
func TestPart(t *testing.T) {
	c, err := ParseConfig([]byte(`{"beta_schedule": "scaled_linear", "prediction_type": "epsilon"}`), "DDIMScheduler")
	if err != nil {
		t.Fatal(err)
	}
	const steps = 8
	clean, noise, dst := []float32{1, -2}, []float32{0.5, 0.25}, make([]float32, 2)
	for _, name := range Names() {
		whole, err := New(name, c, steps)
		if err != nil {
			t.Fatal(err)
		}
		for taken := 1; taken <= steps; taken++ {
			s, err := NewPart(name, c, steps, taken)
			if err != nil {
				t.Fatal(err)
			}
			first := steps - taken
			if name == "heun" || name == "dpmpp_sde" {
				first *= 2
			}
			if s.First() != first || s.Evaluations() != whole.Evaluations() || s.Timestep(first) != whole.Timestep(first) {
				t.Errorf("%s, %d of %d: first %d of %d", name, taken, steps, s.First(), s.Evaluations())
			}
			if _, err := s.Restore(first-1, []NamedArray{{"latents", clean}}); err == nil {
				t.Errorf("%s, %d of %d: restored before its first evaluation", name, taken, steps)
			}
			s.Noised(first, clean, noise, dst)
			state, err := s.Restore(first, s.From(slices.Clone(dst)).Tensors()) // without a history
			if err != nil || dst[0] == clean[0] {
				t.Errorf("%s, %d of %d: latents %v, %v", name, taken, steps, dst, err)
			}
			for i := first; i < s.Evaluations(); i++ {
				state = s.Step(state, []float32{0.1, 0.2}, func(_ int, dst []float32) { clear(dst) })
			}
			s.Noised(s.Evaluations(), clean, noise, dst)
			if !slices.Equal(dst, clean) || len(state.Tensors()) != 1 {
				t.Errorf("%s, %d of %d: %v in the end, want it clean", name, taken, steps, dst)
			}
		}
		for _, taken := range []int{0, -1, steps + 1} {
			var refused *StepsError
			if _, err := NewPart(name, c, steps, taken); !errors.As(err, &refused) {
				t.Errorf("%s, %d of %d: %v", name, taken, steps, err)
			}
		}
	}
}
