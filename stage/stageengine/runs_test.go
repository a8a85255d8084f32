package stageengine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

// goldenCase is a run of an index.json, as testdata/golden/sdxl/README.md describes it: what it says becomes options and files of
// a request, whatever the model.
type goldenCase struct {
	ID, Part, Model, Kind, File, PNG string

	Prompt          string
	NegativePrompt  *string `json:"negative_prompt"`
	Prompt2         string  `json:"prompt_2"`
	NegativePrompt2 string  `json:"negative_prompt_2"`
	Sampler         string
	Steps           int
	GuidanceScale   float64 `json:"guidance_scale"`
	GuidanceRescale float64 `json:"guidance_rescale"`
	Width, Height   int
	Seed            uint64
	Strength        float64
	DenoisingEnd    float64 `json:"denoising_end"`
	ClipSkip        int     `json:"clip_skip"`
	Images          int     `json:"num_images_per_prompt"`
	Image, Mask     string
	Weights         bool // the prompts have them
	RestoreMean     bool `json:"restore_mean"`

	OriginalSize         []int `json:"original_size"`
	Crops                []int `json:"crops_coords_top_left"`
	TargetSize           []int `json:"target_size"`
	NegativeOriginalSize []int `json:"negative_original_size"`
	NegativeCrops        []int `json:"negative_crops_coords_top_left"`
	NegativeTargetSize   []int `json:"negative_target_size"`

	ForceZeros *bool                      `json:"force_zeros"`
	Scheduler  map[string]json.RawMessage `json:"scheduler_config"`
}

const formatGoldens = repo + "/testdata/golden/formats"

// runTolerance is of the largest latent.
const runTolerance = 1e-4

// readCases are the runs of a golden's index that a test is for.
func readCases(t *testing.T, dir string, wanted func(goldenCase) bool) (out []goldenCase) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Runs []goldenCase }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	for _, c := range index.Runs {
		if wanted(c) {
			out = append(out, c)
		}
	}
	return out
}

// options are what the run says, by the names of options; image is which one of a batch.
func (c goldenCase) options(image int) stage.Options {
	o := stage.Options{
		"prompt": stage.TextOption(c.Prompt), "sampler": stage.TextOption(c.Sampler), "steps": stage.IntOption(int64(c.Steps)),
		"guidance_scale": stage.FloatOption(c.GuidanceScale), "width": stage.IntOption(int64(c.Width)), "height": stage.IntOption(int64(c.Height)),
	}
	o["prompt_syntax"] = stage.TextOption("plain")
	if c.Weights {
		o["prompt_syntax"], o["restore_mean"] = stage.TextOption("weights"), stage.BoolOption(c.RestoreMean)
	}
	if c.NegativePrompt != nil {
		o["negative_prompt"] = stage.TextOption(*c.NegativePrompt)
	}
	for name, v := range map[string]string{"prompt_2": c.Prompt2, "negative_prompt_2": c.NegativePrompt2} {
		if v != "" {
			o[name] = stage.TextOption(v)
		}
	}
	for name, v := range map[string]float64{"guidance_rescale": c.GuidanceRescale, "strength": c.Strength, "denoising_end": c.DenoisingEnd} {
		if v != 0 {
			o[name] = stage.FloatOption(v)
		}
	}
	if c.ClipSkip != 0 {
		o["clip_skip"] = stage.IntOption(int64(c.ClipSkip))
	}
	if c.Images > 1 {
		o["batch_size"], o["batch_index"] = stage.IntOption(int64(c.Images)), stage.IntOption(int64(image))
	}
	for names, v := range map[[2]string][]int{
		{"original_height", "original_width"}: c.OriginalSize, {"crop_top", "crop_left"}: c.Crops, {"target_height", "target_width"}: c.TargetSize,
		{"negative_original_height", "negative_original_width"}: c.NegativeOriginalSize, {"negative_crop_top", "negative_crop_left"}: c.NegativeCrops,
		{"negative_target_height", "negative_target_width"}: c.NegativeTargetSize,
	} {
		if v != nil {
			o[names[0]], o[names[1]] = stage.IntOption(int64(v[0])), stage.IntOption(int64(v[1]))
		}
	}
	return o
}

// inputs are the files that the run begins with.
func (c goldenCase) inputs(t *testing.T, dir string) (out stage.Values) {
	t.Helper()
	for name, file := range map[string]string{"init_image": c.Image, "mask": c.Mask} {
		if file == "" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, "inputs", file))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, stage.Value{Name: name, File: &stage.File{Media: "image/png", Data: data}})
	}
	return out
}

// folder is the model of the run, a copy where the run changes its configs.
func (c goldenCase) folder(t *testing.T, dir string) string {
	t.Helper()
	base := bases[c.Model]
	if base == "" && c.ForceZeros == nil && c.Scheduler == nil {
		return filepath.Join(dir, c.Model)
	}
	copied := filepath.Join(t.TempDir(), c.Model)
	if base != "" {
		copyModel(t, filepath.Join(dir, base), copied)
	}
	copyModel(t, filepath.Join(dir, c.Model), copied)
	if c.ForceZeros != nil && !*c.ForceZeros {
		if err := os.Rename(filepath.Join(copied, "model_index.noforce.json"), filepath.Join(copied, "model_index.json")); err != nil {
			t.Fatal(err)
		}
	}
	for key, value := range c.Scheduler {
		editJSON(t, filepath.Join(copied, "scheduler", "scheduler_config.json"), key, value)
	}
	return copied
}

// bases are the models that some have all from but their U-Net.
var bases = map[string]string{"tiny-sd15-inpaint": "tiny-sd15", "micro-inpaint": "micro-sd15"}

// copyModel copies the files of a model over those of another.
func copyModel(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(from, path)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func editJSON(t *testing.T, file, key string, value json.RawMessage) {
	t.Helper()
	data, err := os.ReadFile(file)
	var object map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(data, &object)
	}
	if err != nil {
		t.Fatal(err)
	}
	object[key] = value
	if data, err = json.Marshal(object); err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// stages are those of each kind over models, which everything that a turn asks for is loaded into.
type stages map[stage.Kind]*Stage

func openStages(t *testing.T, dirs ...string) stages {
	t.Helper()
	e, d, v := open(t, dirs...)
	return stages{stage.KindEncoder: e, stage.KindDenoiser: d, stage.KindDecoder: v}
}

// recipe is that of a model.
func (s stages) recipe(model string) stage.Recipe {
	return s[stage.KindDenoiser].model(model).files.Recipes[0]
}

// draw takes every turn of a recipe, as a job does, and gives all of its values.
func (s stages) draw(t *testing.T, recipe stage.Recipe, options stage.Options, inputs stage.Values, seed uint64) (stage.Values, error) {
	t.Helper()
	values := slices.Clone(inputs)
	for _, turn := range recipe.For(values.Has) {
		on := s[turn.Kind]
		for _, component := range turn.Components() {
			if err := on.Load(t.Context(), stage.LoadRequest{Component: component}, nil); err != nil {
				return nil, err
			}
		}
		req := stage.WorkRequest{Turn: turn.Name, Components: turn.Components(), Options: options.Of(turn.Options), Seed: seed}
		for _, p := range turn.Takes {
			if v, ok := values.Get(p.Name); ok {
				req.Values = append(req.Values, v)
			}
		}
		var checkpoints []stage.Checkpoint
		if turn.Kind == stage.KindDenoiser {
			req.CheckpointEveryNSteps = 1
		}
		out, err := on.Work(t.Context(), req, stage.Observer{Checkpoint: func(c stage.Checkpoint) { checkpoints = append(checkpoints, c) }})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", turn.Name, err)
		}
		if n := len(checkpoints); n > 0 { // going on from the middle gives the same
			req.Resume = &checkpoints[n/2]
			if again, err := on.Work(t.Context(), req, stage.Observer{}); err != nil || !bytes.Equal(again.Values[0].Tensor.Data, out.Values[0].Tensor.Data) {
				t.Errorf("%s: other values from step %d on, %v", turn.Name, req.Resume.Step, err)
			}
		}
		values = append(values, out.Values...)
	}
	return values, nil
}

// check draws the pictures of a run and compares each with its golden.
func (c goldenCase) check(t *testing.T, dir string, s stages, recipe stage.Recipe) string {
	t.Helper()
	file, err := weights.OpenFile(filepath.Join(dir, c.File))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	last := tensorOf(t, file, lastLatents(file))
	images, told := max(1, c.Images), ""
	for image := range images {
		values, err := s.draw(t, recipe, c.options(image), c.inputs(t, dir), c.Seed)
		if err != nil {
			t.Errorf("%s: %v", c.ID, err)
			return ""
		}
		latents, _ := values.Get("latents")
		picture, _ := values.Get("image")
		name := c.PNG
		if image > 0 {
			name = strings.TrimSuffix(c.PNG, ".png") + fmt.Sprintf(".%d.png", image)
		}
		reference, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		n := len(last) / images
		told += fmt.Sprintf("%-32s %s\n", c.ID, comparePicture(t, c.ID, runTolerance, last[image*n:][:n], floats(t, latents.Tensor), reference, picture.File.Data))
	}
	return told
}

// lastLatents is the name of the latents behind the last step.
func lastLatents(file *weights.Set) string {
	step := func(name string) int {
		var n int
		if _, err := fmt.Sscanf(name, "latents.%d", &n); err != nil {
			return -1
		}
		return n
	}
	return slices.MaxFunc(file.Names(), func(a, b string) int { return step(a) - step(b) })
}

// TestGoldenCases draws every run of a model alone, with the weights of its directory.
func TestGoldenCases(t *testing.T) {
	for dir, want := range map[string]struct {
		part   string
		models []string
		runs   int
	}{
		sdxlGoldens:   {"runs", []string{"tiny-sdxl", "tiny-sd15", "tiny-sd15-inpaint"}, 49},
		formatGoldens: {"checkpoints", []string{"micro-sd15", "micro-inpaint", "micro-sd2", "micro-sdxl"}, 6},
	} {
		cases := readCases(t, dir, func(c goldenCase) bool {
			return c.Part == want.part && slices.Contains(want.models, c.Model) && !strings.HasPrefix(c.ID, "ck-sd-")
		})
		opened, told := map[string]stages{}, ""
		for _, c := range cases {
			model := c.folder(t, dir)
			if opened[model] == nil {
				opened[model] = openStages(t, model)
			}
			told += c.check(t, dir, opened[model], opened[model].recipe(c.Model))
		}
		if len(cases) != want.runs {
			t.Errorf("%s: %d runs, want %d", dir, len(cases), want.runs)
		}
		t.Logf("run, latents' largest error (allowed %g), PNG values off by one and by more:\n%s", runTolerance, told)
	}
}

// What every turn is planned to take is what it takes, to the byte; less where a negative prompt is nothing but zeros.
func TestGoldenPlans(t *testing.T) {
	ids := []string{"xl-neg", "xl-clipskip1", "xl-noguidance", "xl-inpaint-10", "sd-clipskip1", "sd-inpaint9-ddim-060"}
	cases := readCases(t, sdxlGoldens, func(c goldenCase) bool { return slices.Contains(ids, c.ID) })
	if len(cases) != len(ids) {
		t.Fatalf("%d runs, want %d", len(cases), len(ids))
	}
	for _, c := range cases {
		dir := c.folder(t, sdxlGoldens)
		all := openStages(t, dir)
		recipe := all.recipe(c.Model)
		values, err := all.draw(t, recipe, c.options(0), c.inputs(t, sdxlGoldens), c.Seed)
		if err != nil {
			t.Fatal(err)
		}
		for _, turn := range recipe.For(c.inputs(t, sdxlGoldens).Has) {
			plan := stage.PlanRequest{Turn: turn.Name, Components: turn.Components(), Options: recipe.Shape(turn, c.options(0))}
			planned, err := all[turn.Kind].Plan(t.Context(), plan)
			if err != nil {
				t.Fatal(err)
			}
			library, err := OpenLibrary(dir)
			if err != nil {
				t.Fatal(err)
			}
			dev, err := cpu.New(cpu.Options{MemoryCapBytes: planned.WeightsBytes() + planned.ScratchBytes})
			if err != nil {
				t.Fatal(err)
			}
			alone := newStage(turn.Kind, Options{Library: library, Device: dev, Host: "test", Version: "test"})
			req := stage.WorkRequest{Turn: turn.Name, Components: turn.Components(), Options: c.options(0).Of(turn.Options), Seed: c.Seed}
			for _, p := range turn.Takes {
				if v, ok := values.Get(p.Name); ok {
					req.Values = append(req.Values, v)
				}
			}
			for _, component := range turn.Components() {
				if err := alone.Load(t.Context(), stage.LoadRequest{Component: component}, nil); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := alone.Work(t.Context(), req, stage.Observer{}); err != nil {
				t.Errorf("%s %s: %v", c.ID, turn.Name, err)
			}
			if peak := dev.Memory().PeakBytes; peak != planned.WeightsBytes()+planned.ScratchBytes {
				t.Errorf("%s %s: a peak of %d bytes, planned %+v", c.ID, turn.Name, peak, planned)
			}
			for _, component := range turn.Components() {
				if _, err := alone.Evict(t.Context(), stage.EvictRequest{Component: component}); err != nil {
					t.Error(err)
				}
			}
			if err := dev.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
