package stageengine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

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

// turns are those of a job.
func (s stages) turns(recipe stage.Recipe, options stage.Options, inputs stage.Values) []stage.Turn {
	return recipe.Choose(options, func(model, part string) bool {
		return slices.ContainsFunc(stage.Kinds(), func(kind stage.Kind) bool { return s[kind].adapts(model, part) })
	}).For(inputs.Has)
}

// draw takes every turn of a recipe, as a job does, and gives all of its values.
func (s stages) draw(t *testing.T, recipe stage.Recipe, options stage.Options, inputs stage.Values, seed uint64) (stage.Values, error) {
	t.Helper()
	values := slices.Clone(inputs)
	for _, turn := range s.turns(recipe, options, inputs) {
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
		latents, ok := values.Get("refined_latents")
		if !ok {
			latents, _ = values.Get("latents")
		}
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
		moreGoldens:   {"more", []string{"tiny-sdxl", "tiny-sdxl-inpaint", "tiny-refiner"}, 34},
	} {
		cases := readCases(t, dir, func(c goldenCase) bool {
			return c.Part == want.part && slices.Contains(want.models, c.Model) && !strings.HasPrefix(c.ID, "ck-sd-")
		})
		opened, told := map[string]stages{}, ""
		for _, c := range cases {
			models := c.folders(t, dir)
			key := strings.Join(models, ",")
			if opened[key] == nil {
				opened[key] = openStages(t, models...)
			}
			told += c.check(t, dir, opened[key], opened[key].recipe(c.Model))
		}
		if len(cases) != want.runs {
			t.Errorf("%s: %d runs, want %d", dir, len(cases), want.runs)
		}
		t.Logf("run, latents' largest error (allowed %g), PNG values off by one and by more:\n%s", runTolerance, told)
	}
}

// What every turn is planned to take is what it takes, to the byte; less where a negative prompt is nothing but zeros.
func TestGoldenPlans(t *testing.T) {
	for id, dir := range map[string]string{
		"xl-neg": sdxlGoldens, "xl-clipskip1": sdxlGoldens, "xl-noguidance": sdxlGoldens, "xl-inpaint-10": sdxlGoldens, "sd-clipskip1": sdxlGoldens,
		"sd-inpaint9-ddim-060": sdxlGoldens, "second-heun": moreGoldens, "xl-inpaint9-060": moreGoldens, "sd-weights-0": sdxlGoldens, "xl-weights-0": sdxlGoldens,
	} {
		cases := readCases(t, dir, func(c goldenCase) bool { return c.ID == id })
		if len(cases) != 1 {
			t.Fatalf("%s: %d runs", id, len(cases))
		}
		c := cases[0]
		models := c.folders(t, dir)
		openStages(t, models...).checkPlans(t, id, c.Model, c.options(0), c.inputs(t, dir), models...)
	}
}

// checkPlans takes every turn of a request on a device that has just the bytes that were planned for it. The models are in dirs.
func (s stages) checkPlans(t *testing.T, id, model string, options stage.Options, inputs stage.Values, dirs ...string) {
	t.Helper()
	recipe := s.recipe(model)
	values, err := s.draw(t, recipe, options, inputs, 1)
	if err != nil {
		t.Fatal(err)
	}
	library, err := OpenLibrary(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	states, _ := values.Get("hidden_states")
	options["prompt_tokens"] = stage.IntOption(int64(states.Tensor.Shape[1])) // as the pipeline tells it
	for _, turn := range s.turns(recipe, options, inputs) {
		plan := stage.PlanRequest{Turn: turn.Name, Components: turn.Components(), Options: recipe.Shape(turn, options)}
		planned, err := s[turn.Kind].Plan(t.Context(), plan)
		if err != nil {
			t.Fatal(err)
		}
		dev, err := cpu.New(cpu.Options{MemoryCapBytes: planned.WeightsBytes() + planned.ScratchBytes})
		if err != nil {
			t.Fatal(err)
		}
		alone := newStage(turn.Kind, Options{Library: library, Device: dev, Host: "test", Version: "test"})
		req := stage.WorkRequest{Turn: turn.Name, Components: turn.Components(), Options: options.Of(turn.Options), Seed: 1}
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
			t.Errorf("%s %s: %v", id, turn.Name, err)
		}
		if peak := dev.Memory().PeakBytes; peak != planned.WeightsBytes()+planned.ScratchBytes {
			t.Errorf("%s %s: a peak of %d bytes, planned %+v", id, turn.Name, peak, planned)
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

// A refiner asked to draw from nothing is refused by the picture that it needs, and an inpainting model by the mask too.
func TestModelsOfPictures(t *testing.T) {
	for model, want := range map[string][]bool{"tiny-sdxl": {true, true}, "tiny-refiner": {false, true}, "tiny-sdxl-inpaint": {false, false}} {
		c := readCases(t, moreGoldens, func(c goldenCase) bool { return c.Model == model })[0]
		s := openStages(t, c.folder(t, moreGoldens))
		recipe := s.recipe(model)
		for i, input := range recipe.Inputs[:len(want)] {
			if input.Optional != want[i] {
				t.Errorf("%s: %s may be missing: %v", model, input.Name, input.Optional)
			}
		}
		_, err := s.draw(t, recipe, c.options(0).Of([]string{"prompt", "width", "height"}), nil, 1)
		if refused := stage.ReasonOf(err) == stage.InvalidField && strings.Contains(err.Error(), "init_image"); refused == want[0] {
			t.Errorf("%s without a picture: %v", model, err)
		}
	}
}

// A refiner is named alone, with a share of denoising behind which a step is left, and beside no mask.
func TestRefinerRefusals(t *testing.T) {
	c := readCases(t, moreGoldens, func(c goldenCase) bool { return c.ID == "second-euler" })[0]
	s := openStages(t, c.folders(t, moreGoldens)...)
	recipe, o := s.recipe(c.Model), c.options(0)
	picture := goldenCase{Image: "photo-64x48.png", Mask: "mask-64x48.png"}.inputs(t, moreGoldens)
	for text, inputs := range map[string]stage.Values{
		c.Refiner + ":1": nil, c.Refiner + ":0": nil, c.Refiner + ":-1": nil, c.Refiner + ":0.5:0.5": nil, c.Refiner + ",other": nil, c.Refiner: picture,
		c.Refiner + ":0.9999": nil, c.Refiner + ":0.0001": nil,
	} {
		o["refiner"] = stage.TextOption(text)
		_, err := s.draw(t, recipe, o, inputs, 1)
		if stage.ReasonOf(err) != stage.InvalidField || !strings.Contains(err.Error(), "refiner") {
			t.Errorf("%s, %d files: %v", text, len(inputs), err)
		}
	}
}

// The base's second text encoder serves as the refiner's, which is equal, and gives the refiner the same.
func TestRefinerSharesItsEncoder(t *testing.T) {
	c := readCases(t, moreGoldens, func(c goldenCase) bool { return c.ID == "second-heun" })[0]
	s := openStages(t, c.folders(t, moreGoldens)...)
	encoder := s[stage.KindEncoder]
	turn, _ := s.recipe(c.Model).Turn("refine_encode")
	var all []stage.Values
	for _, component := range []string{"tiny-refiner/text_encoder_2", "tiny-sdxl/text_encoder_2"} {
		if err := encoder.Load(t.Context(), stage.LoadRequest{Component: component}, nil); err != nil {
			t.Fatal(err)
		}
		out, err := encoder.Work(t.Context(), stage.WorkRequest{Turn: turn.Name, Components: []string{component}, Options: c.options(0).Of(turn.Options)}, stage.Observer{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, out.Values)
	}
	if !reflect.DeepEqual(all[0], all[1]) || len(all[0]) != 2 || all[0][0].Name != "refiner_hidden_states" {
		t.Errorf("other values, %d and %d", len(all[0]), len(all[1]))
	}
}
