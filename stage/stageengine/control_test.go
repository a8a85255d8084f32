package stageengine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

// controlCase is a run under ControlNets: numbers are one for all or one for each.
type controlCase struct {
	goldenCase
	Controls []struct{ Model, Image, Mask string }
	Scale    json.RawMessage `json:"controlnet_conditioning_scale"`
	Start    json.RawMessage `json:"control_guidance_start"`
	End      json.RawMessage `json:"control_guidance_end"`
}

// indexed are the runs of a golden's index as C has them.
func indexed[C any](t *testing.T, dir string) (out []C) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Runs []C }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	return index.Runs
}

// number is the i-th of a number for all or a list.
func number(t *testing.T, raw json.RawMessage, i int, def float64) float64 {
	t.Helper()
	var one float64
	var list []float64
	switch {
	case raw == nil:
		return def
	case json.Unmarshal(raw, &one) == nil:
		return one
	case json.Unmarshal(raw, &list) != nil || i >= len(list):
		t.Fatalf("%s is no number for %d", raw, i)
	}
	return list[i]
}

// request is what the run says of ControlNets: the option that names them, and their files.
func (c controlCase) request(t *testing.T, dir string) (stage.Options, stage.Values) {
	t.Helper()
	o, values := c.options(0), c.inputs(t, dir)
	var names []string
	for i, k := range c.Controls {
		names = append(names, fmt.Sprintf("%s:%v:%v:%v", filepath.Base(k.Model), number(t, c.Scale, i, 1), number(t, c.Start, i, 0), number(t, c.End, i, 1)))
		for name, file := range map[string]string{"control_image": k.Image, "control_mask": k.Mask} {
			if i > 0 {
				name += fmt.Sprintf("_%d", i+1)
			}
			if file == "" {
				continue
			}
			data, err := os.ReadFile(filepath.Join(dir, "inputs", file))
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, stage.Value{Name: name, File: &stage.File{Media: "image/png", Data: data}})
		}
	}
	o["controlnets"] = stage.TextOption(strings.Join(names, ","))
	return o, values
}

// chosen is a model's recipe for options, with adapters that any stage has.
func (s stages) chosen(model string, o stage.Options) stage.Recipe {
	return s.recipe(model).Choose(o, func(model, part string) bool {
		for _, on := range s {
			if on.adapts(model, part) {
				return true
			}
		}
		return false
	})
}

// checkRun draws a picture and compares it with a run.
func (s stages) checkRun(t *testing.T, c goldenCase, dir, model string, o stage.Options, inputs stage.Values) string {
	t.Helper()
	values, err := s.draw(t, s.chosen(model, o), o, inputs, c.Seed)
	if err != nil {
		t.Errorf("%s: %v", c.ID, err)
		return ""
	}
	file, err := weights.OpenFile(filepath.Join(dir, c.File))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	reference, err := os.ReadFile(filepath.Join(dir, c.PNG))
	if err != nil {
		t.Fatal(err)
	}
	latents, _ := values.Get("latents")
	picture, _ := values.Get("image")
	return fmt.Sprintf("%-32s %s\n", c.ID, comparePicture(t, c.ID, runTolerance, tensorOf(t, file, lastLatents(file)), floats(t, latents.Tensor), reference, picture.File.Data))
}

// TestControlNetCases draws every run under ControlNets.
func TestControlNetCases(t *testing.T) {
	told := ""
	for dir, want := range map[string]int{sdxlGoldens: 6, formatGoldens: 3} {
		n := 0
		for _, c := range indexed[controlCase](t, dir) {
			if c.Part != "control" {
				continue
			}
			n++
			dirs := []string{filepath.Join(dir, c.Model)}
			for _, k := range c.Controls {
				dirs = append(dirs, filepath.Join(dir, k.Model))
			}
			o, inputs := c.request(t, dir)
			told += openStages(t, dirs...).checkRun(t, c.goldenCase, dir, c.Model, o, inputs)
		}
		if n != want {
			t.Errorf("%d runs of %s, want %d", n, dir, want)
		}
	}
	t.Logf("run, latents' largest error (allowed %g), PNG values off by one and by more:\n%s", runTolerance, told)
}

// TestControlNetPlans: a turn with ControlNets and an IP-Adapter takes what it is planned to, to the byte, from headers alone.
func TestControlNetPlans(t *testing.T) {
	ids := map[string]bool{"xl-control-0": true, "xl-control-2": true, "sd-control-multi": true}
	for _, c := range indexed[controlCase](t, sdxlGoldens) {
		if !ids[c.ID] {
			continue
		}
		dirs := []string{filepath.Join(sdxlGoldens, c.Model)}
		for _, k := range c.Controls {
			dirs = append(dirs, filepath.Join(sdxlGoldens, k.Model))
		}
		o, inputs := c.request(t, sdxlGoldens)
		if c.Model == "tiny-sd15" {
			ip := filepath.Join(sdxlGoldens, "ip-adapter")
			dirs = append(dirs, adapterFolder(t, filepath.Join(ip, "ip-adapter_tiny.safetensors"), filepath.Join(ip, "image_encoder")))
			o["ip_adapter"] = stage.TextOption("face:0.5")
			inputs = append(inputs, stage.Value{Name: "image_prompt", File: inputs[0].File})
		}
		openStages(t, dirs...).checkPlans(t, c.ID, c.Model, o, inputs, dirs...)
		delete(ids, c.ID)
	}
	if len(ids) > 0 {
		t.Errorf("no runs %v", ids)
	}
}

// TestControlNetRefusals: what does not fit its model, or lacks a picture, is told before the U-Net runs: most of it by a plan.
func TestControlNetRefusals(t *testing.T) {
	dirs := []string{filepath.Join(sdxlGoldens, "tiny-sd15"), filepath.Join(sdxlGoldens, "control-sd-a"), filepath.Join(sdxlGoldens, "control-xl-a"), filepath.Join(formatGoldens, "control", "sd")}
	s := openStages(t, dirs...)
	var run controlCase
	for _, c := range indexed[controlCase](t, sdxlGoldens) {
		if c.ID == "sd-control-0" {
			run = c
		}
	}
	_, inputs := run.request(t, sdxlGoldens)
	second := stage.Value{Name: "control_image_2", File: inputs[0].File}
	for _, c := range []struct {
		named       string
		inputs      stage.Values
		field, tell string
		planned     bool
	}{
		{"control-xl-a", inputs, "controlnets", "cross_attention_dim 80, where the model has 32", true},
		{"sd", inputs, "controlnets", "cross_attention_dim 8, where the model has 32", true},
		{"control-sd-a:1:0.5:0.5", inputs, "controlnets", "0 <= START < END <= 1", true},
		{"control-sd-a:1:0:1.5", inputs, "controlnets", "0 <= START < END <= 1", true},
		{"control-sd-a:1:0:1:1", inputs, "controlnets", "NAME:SCALE:START:END", true},
		{"control-sd-a", nil, "control_image", "ControlNet control-sd-a", false},
		{"control-sd-a", append(stage.Values{second}, inputs...), "control_image_2", "one for each ControlNet", false},
		{"", inputs, "control_image", "one for each ControlNet", false},
	} {
		o := run.options(0)
		o["controlnets"] = stage.TextOption(c.named)
		recipe := s.chosen("tiny-sd15", o)
		_, err := s.draw(t, recipe, o, c.inputs, 1)
		for _, planned := range []bool{false, true} {
			if planned {
				turn, _ := recipe.Turn("denoise")
				_, err = s[stage.KindDenoiser].Plan(t.Context(), stage.PlanRequest{Turn: "denoise", Components: turn.Components(), Options: recipe.Shape(turn, o)})
				if !c.planned {
					if err != nil {
						t.Errorf("%q: a plan fails: %v", c.named, err)
					}
					continue
				}
			}
			var refused *stage.Error
			if !errors.As(err, &refused) || refused.Reason != stage.InvalidField || refused.Metadata["field"] != c.field || !strings.Contains(refused.Message, c.tell) {
				t.Errorf("%q (planned: %v): %v, want InvalidField %s that tells %q", c.named, planned, err, c.field, c.tell)
			}
		}
	}
}
