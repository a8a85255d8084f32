package stageengine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

const controlGoldens = repo + "/testdata/golden/control"

// controlCase is a run under ControlNets and an IP-Adapter: numbers are one for all or one for each.
type controlCase struct {
	goldenCase
	Controls []struct {
		Model, Image, Mask string
		Config             map[string]json.RawMessage
	}
	Scale     json.RawMessage `json:"controlnet_conditioning_scale"`
	Start     json.RawMessage `json:"control_guidance_start"`
	End       json.RawMessage `json:"control_guidance_end"`
	IPAdapter *struct {
		File, Encoder, Image string
		Scale                float64
	} `json:"ip_adapter"`
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

// request is what the run says of adapters: the options that name them, and their files, which are in inputs.
func (c controlCase) request(t *testing.T, inputs string) (stage.Options, stage.Values) {
	t.Helper()
	o, values := c.options(0), c.inputs(t, filepath.Dir(inputs))
	add := func(name, file string) {
		data, err := os.ReadFile(filepath.Join(inputs, strings.TrimPrefix(file, "sdxl:")))
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, stage.Value{Name: name, File: &stage.File{Media: "image/png", Data: data}})
	}
	var names []string
	for i, k := range c.Controls {
		names = append(names, fmt.Sprintf("%s:%v:%v:%v", filepath.Base(k.Model), number(t, c.Scale, i, 1), number(t, c.Start, i, 0), number(t, c.End, i, 1)))
		for name, file := range map[string]string{"control_image": k.Image, "control_mask": k.Mask} {
			if i > 0 {
				name += fmt.Sprintf("_%d", i+1)
			}
			if file != "" {
				add(name, file)
			}
		}
	}
	o["controlnets"] = stage.TextOption(strings.Join(names, ","))
	if c.IPAdapter != nil {
		o["ip_adapter"] = stage.TextOption(fmt.Sprintf("face:%g", c.IPAdapter.Scale))
		add("image_prompt", c.IPAdapter.Image)
	}
	return o, values
}

// folders are the models of the run: the one that draws is in dir, ControlNets there too, an IP-Adapter from own on.
func (c controlCase) folders(t *testing.T, dir, own string) []string {
	t.Helper()
	dirs := []string{c.folder(t, dir)}
	for _, k := range c.Controls {
		net := filepath.Join(dir, k.Model)
		if len(k.Config) > 0 {
			copied := filepath.Join(t.TempDir(), filepath.Base(k.Model))
			if err := os.CopyFS(copied, os.DirFS(net)); err != nil {
				t.Fatal(err)
			}
			for key, value := range k.Config {
				editJSON(t, filepath.Join(copied, "config.json"), key, value)
			}
			net = copied
		}
		dirs = append(dirs, net)
	}
	if c.IPAdapter != nil {
		dirs = append(dirs, adapterFolder(t, goldenPath(own, c.IPAdapter.File), goldenPath(own, c.IPAdapter.Encoder)))
	}
	return dirs
}

// checkRun draws a picture and compares it with a run.
func (s stages) checkRun(t *testing.T, c goldenCase, dir, model string, o stage.Options, inputs stage.Values) string {
	t.Helper()
	values, err := s.draw(t, s.recipe(model), o, inputs, c.Seed)
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

// TestAdapterCases draws every run under ControlNets or an IP-Adapter, or both.
func TestAdapterCases(t *testing.T) {
	for _, g := range []struct {
		part, dir, models string
		runs              int
	}{
		{"control", sdxlGoldens, sdxlGoldens, 6},
		{"ip", sdxlGoldens, sdxlGoldens, 4},
		{"control", formatGoldens, formatGoldens, 3},
		{"ip", formatGoldens, sdxlGoldens, 1},
		{"control", controlGoldens, sdxlGoldens, 18},
	} {
		runs, told := 0, ""
		for _, c := range indexed[controlCase](t, g.dir) {
			if c.Part != g.part {
				continue
			}
			runs++
			o, inputs := c.request(t, filepath.Join(g.models, "inputs"))
			told += openStages(t, c.folders(t, g.models, g.dir)...).checkRun(t, c.goldenCase, g.dir, c.Model, o, inputs)
		}
		if runs != g.runs {
			t.Errorf("%d runs of %s in %s, want %d", runs, g.part, g.dir, g.runs)
		}
		t.Logf("run, latents' largest error (allowed %g), PNG values off by one and by more:\n%s", runTolerance, told)
	}
}

// TestControlNetPlans: a turn with ControlNets and an IP-Adapter takes what it is planned to, to the byte, from headers alone.
func TestControlNetPlans(t *testing.T) {
	ids := map[string]bool{"xl-control-0": true, "xl-control-2": true, "sd-control-multi": true}
	for _, c := range indexed[controlCase](t, sdxlGoldens) {
		if !ids[c.ID] {
			continue
		}
		dirs := c.folders(t, sdxlGoldens, sdxlGoldens)
		o, inputs := c.request(t, filepath.Join(sdxlGoldens, "inputs"))
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
	_, inputs := run.request(t, filepath.Join(sdxlGoldens, "inputs"))
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
		recipe := s.recipe("tiny-sd15")
		_, err := s.draw(t, recipe, o, c.inputs, 1)
		for _, planned := range []bool{false, true} {
			if planned {
				turns := s.turns(recipe, o, nil)
				turn := turns[slices.IndexFunc(turns, func(t stage.Turn) bool { return t.Name == "denoise" })]
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

// fileCase is a row of the table of files: what it comes to with a run, or why it is refused.
type fileCase struct {
	File                    json.RawMessage
	Group, Expect, Run, Why string
	Base, Encoder, Ref      string
	Scale                   float64
}

// TestAdaptersElsewhere: pictures under a ControlNet and an IP-Adapter at once are the same with weights that are streamed, and on a device that has
// memory of its own; so they are in two passes, of which the second is led by the picture in its own size.
func TestAdaptersElsewhere(t *testing.T) {
	for _, c := range indexed[controlCase](t, controlGoldens) {
		if c.ID != "ip-sd-control" {
			continue
		}
		o, inputs := c.request(t, filepath.Join(sdxlGoldens, "inputs"))
		elsewhere(t, c.folders(t, sdxlGoldens, controlGoldens), func(name string, s stages) {
			t.Log(name, s.checkRun(t, c.goldenCase, controlGoldens, c.Model, o, inputs))
			if name == "copying" {
				s.inTwoPasses(t, c, o, inputs)
			}
		})
		return
	}
	t.Error("no such run")
}

// elsewhere gives stages whose weights are streamed, and stages on a device that has memory of its own.
func elsewhere(t *testing.T, dirs []string, give func(name string, s stages)) {
	t.Helper()
	library, err := OpenLibrary(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	var computes [2]device.Device
	for i := range computes {
		if computes[i], err = cpu.New(cpu.Options{Threads: 2}); err != nil {
			t.Fatal(err)
		}
	}
	copying, err := devicetest.NewCopying(computes[1], devicetest.CopyingOptions{OverheadBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	least := map[stage.Kind]int64{stage.KindEncoder: 0, stage.KindDenoiser: 0, stage.KindDecoder: 0}
	for name, options := range map[string]Options{
		"streamed": {Library: library, Device: computes[0], Host: "test", Version: "test", ResidentBytes: least},
		"copying":  {Library: library, Device: copying, Host: "test", Version: "test"},
	} {
		s := stages{}
		for _, kind := range stage.Kinds() {
			s[kind] = newStage(kind, options)
		}
		give(name, s)
		for _, on := range s {
			for _, b := range on.all() {
				if _, err := on.Evict(t.Context(), stage.EvictRequest{Component: b.component.Name}); err != nil {
					t.Error(err)
				}
			}
		}
		if used := options.Device.Memory().UsedBytes; used != 0 {
			t.Errorf("%s: %d bytes are left on the device", name, used)
		}
		if err := options.Device.Close(); err != nil {
			t.Error(err)
		}
	}
}

// inTwoPasses draws a picture twice as large, with adapters and without.
func (s stages) inTwoPasses(t *testing.T, c controlCase, o stage.Options, inputs stage.Values) {
	t.Helper()
	recipe := s[stage.KindDenoiser].model(c.Model).files.Recipes[1]
	o = o.Of(slices.Collect(maps.Keys(o)))
	o["hires_strength"] = stage.FloatOption(0.6)
	led, err := s.draw(t, recipe, o, inputs, c.Seed)
	if err != nil {
		t.Fatal(err)
	}
	latents, _ := led.Get("hires_latents")
	if want := []int{1, 4, 24, 32}; !slices.Equal(latents.Tensor.Shape, want) {
		t.Errorf("latents %v of the second pass, want %v", latents.Tensor.Shape, want)
	}
	delete(o, "controlnets")
	delete(o, "ip_adapter")
	alone, err := s.draw(t, recipe, o, nil, c.Seed)
	if err != nil {
		t.Fatal(err)
	}
	if other, _ := alone.Get("hires_latents"); bytes.Equal(other.Tensor.Data, latents.Tensor.Data) {
		t.Error("adapters change nothing")
	}
}
