package stageengine

import (
	"encoding/json"
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
