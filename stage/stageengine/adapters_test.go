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

// adapterFolder makes a model of an IP-Adapter's file and its image encoder.
func adapterFolder(t *testing.T, file, encoder string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "face")
	data, err := os.ReadFile(file)
	if err == nil {
		err = errors.Join(os.Mkdir(dir, 0o700), os.CopyFS(filepath.Join(dir, "image_encoder"), os.DirFS(encoder)),
			os.WriteFile(filepath.Join(dir, "model_index.json"), []byte(`{"_class_name": "IPAdapter"}`), 0o600),
			os.WriteFile(filepath.Join(dir, "diffusion_pytorch_model"+filepath.Ext(file)), data, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// goldenPath is a path that an index in dir names, of the other goldens behind "sdxl:".
func goldenPath(dir, name string) string {
	if other, ok := strings.CutPrefix(name, "sdxl:"); ok {
		return filepath.Join(sdxlGoldens, other)
	}
	return filepath.Join(dir, name)
}

// fileCase is a row of the table of files: what it comes to with a run, or why it is refused.
type fileCase struct {
	File                    json.RawMessage
	Group, Expect, Run, Why string
	Base, Encoder           string
}

// TestAdapterFiles: every file with a ControlNet or an IP-Adapter, as people have them, draws the picture of its run, or is refused by what
// it is.
func TestAdapterFiles(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(formatGoldens, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Files []fileCase }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	// What the errors tell beside the index's words, and files that may be refused and are.
	tells := map[string]string{
		"sd-difference": "differences from a U-Net's weights", "bad-control-lora": "control-LoRA", "bad-union": "union", "bad-t2i-adapter": "T2I-Adapter",
		"bad-t2i-adapter-diffusers": "T2I-Adapter", "bad-lllite": "LLLite", "bad-one-missing": "control_model.zero_convs.2.0.weight", "bad-hed": "HED",
		"xl-diffusers": "cross_attention_dim 20, where the model has 8", "training-pytorch_model": "checkpoint of training", "bad-faceid": "FaceID", "bad-faceid-plus": "FaceID Plus", "bad-full-face": "full faces",
		"bad-sdxl": `"ip_adapter.1.to_k_ip.weight" is misshapen: expected [24, 32], got [24, 80]`, "bad-one-layer-missing": "ip_adapter.5 is missing", "bad-flux": "FLUX",
	}
	runs := map[string]controlCase{}
	for _, dir := range []string{formatGoldens, sdxlGoldens} {
		for _, c := range indexed[controlCase](t, dir) {
			if dir == sdxlGoldens {
				c.ID = "sdxl:" + c.ID
			}
			runs[c.ID] = c
		}
	}
	told, n := "", 0
	for _, f := range index.Files {
		var file string
		if json.Unmarshal(f.File, &file) != nil || f.Group != "control" && f.Group != "ip" || strings.Contains(file, "encoder") {
			continue
		}
		n++
		name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		path := filepath.Join(t.TempDir(), filepath.Base(file))
		data, err := os.ReadFile(filepath.Join(formatGoldens, file))
		if err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
		if f.Group == "ip" && err == nil {
			err = os.CopyFS(filepath.Join(filepath.Dir(path), "image_encoder"), os.DirFS(filepath.Join(sdxlGoldens, "ip-adapter", "image_encoder")))
		}
		if err != nil {
			t.Fatal(err)
		}
		base, goldens := filepath.Join(formatGoldens, f.Base), formatGoldens
		if rest, ok := strings.CutPrefix(f.Base, "sdxl/"); ok {
			base, goldens = filepath.Join(sdxlGoldens, rest), sdxlGoldens
		}
		s := openStages(t, base, path)
		c, drawn := runs[f.Run]
		if !drawn {
			c = runs[map[string]string{"control": "cn-sd", "ip": "sdxl:sd-ip-0"}[f.Group]]
		}
		o, inputs := c.request(t, filepath.Join(goldens, "inputs"))
		for _, option := range []string{"controlnets", "ip_adapter"} {
			if choices := o.Chosen(option); len(choices) > 0 {
				choices[0].Name = name
				o[option] = stage.TextOption(choices[0].String())
			}
		}
		why := ""
		for _, on := range s {
			if m := on.model(name); m.problem != nil {
				why = m.problem.Message
			}
			for part := range map[string]bool{"controlnet": true, "ip_adapter": true} {
				if b := on.book(name + "/" + part); b != nil && b.problem != nil {
					why = b.problem.Message
				}
			}
		}
		if why == "" && strings.Contains(f.Expect, "refuse") && f.Expect != "equal-or-refuse" {
			_, err := s.draw(t, s.recipe(filepath.Base(f.Base)), o, inputs, 1)
			why = fmt.Sprint(err)
		}
		tell := tells[name]
		switch {
		case f.Expect == "equal" || f.Expect == "equal-or-refuse" && tell == "":
			if why != "" {
				t.Errorf("%s: %s", file, why)
				continue
			}
			c.ID = file
			of := formatGoldens
			if strings.HasPrefix(f.Run, "sdxl:") {
				of = sdxlGoldens
			}
			told += s.checkRun(t, c.goldenCase, of, filepath.Base(f.Base), o, inputs)
		case why == "" || tell == "" || !strings.Contains(why, tell):
			t.Errorf("%s: %q, want a refusal that tells %q (%s)", file, why, tell, f.Why)
		default:
			told += fmt.Sprintf("%-32s refused: %s\n", file, why)
		}
	}
	if n != 27 {
		t.Errorf("%d files", n)
	}
	t.Logf("file, latents' largest error (allowed %g), PNG values off by one and by more, or why it is refused:\n%s", runTolerance, told)
}

// TestImageEncoders: an image encoder may be a torch file; one of another kind, or without a projection, is refused.
func TestImageEncoders(t *testing.T) {
	var run controlCase
	for _, c := range indexed[controlCase](t, sdxlGoldens) {
		if c.ID == "sd-ip-0" {
			run = c
		}
	}
	adapter, configs := filepath.Join(sdxlGoldens, "ip-adapter", "ip-adapter_tiny.safetensors"), filepath.Join(formatGoldens, "ip", "encoder-bin")
	o, inputs := run.request(t, filepath.Join(sdxlGoldens, "inputs"))
	s := openStages(t, filepath.Join(sdxlGoldens, run.Model), adapterFolder(t, adapter, configs))
	t.Log(s.checkRun(t, run.goldenCase, sdxlGoldens, run.Model, o, inputs))
	for file, tell := range map[string]string{
		"encoder-open_clip.safetensors": "open_clip", "bad-encoder-no-projection.safetensors": "without visual_projection", "": "nothing",
	} {
		dir := adapterFolder(t, adapter, configs)
		encoder := filepath.Join(dir, "image_encoder")
		if err := os.Remove(filepath.Join(encoder, "pytorch_model.bin")); err != nil {
			t.Fatal(err)
		}
		if file == "" {
			if err := os.RemoveAll(encoder); err != nil {
				t.Fatal(err)
			}
		} else if data, err := os.ReadFile(filepath.Join(formatGoldens, "ip", file)); err != nil || os.WriteFile(filepath.Join(encoder, "model.safetensors"), data, 0o600) != nil {
			t.Fatal(err)
		}
		on := openStages(t, filepath.Join(sdxlGoldens, run.Model), dir)[stage.KindEncoder]
		m, b, got := on.model("face"), on.book("face/image_encoder"), ""
		if m.problem != nil {
			got = m.problem.Message
		} else if b.problem != nil {
			got = b.problem.Message
		}
		if !strings.Contains(got, tell) {
			t.Errorf("%s: %q, want one that tells %q", file, got, tell)
		}
	}
}

// TestAdaptersElsewhere: pictures under a ControlNet and an IP-Adapter at once are the same with weights that are streamed, and on a device that has
// memory of its own; so they are in two passes, of which the second is led by the picture in its own size.
func TestAdaptersElsewhere(t *testing.T) {
	for _, c := range indexed[controlCase](t, controlGoldens) {
		if c.ID != "ip-sd-control" {
			continue
		}
		o, inputs := c.request(t, filepath.Join(sdxlGoldens, "inputs"))
		library, err := OpenLibrary(c.folders(t, sdxlGoldens, controlGoldens)...)
		if err != nil {
			t.Fatal(err)
		}
		var computes [2]device.Device
		for i := range computes {
			d, err := cpu.New(cpu.Options{Threads: 2})
			if err != nil {
				t.Fatal(err)
			}
			computes[i] = d
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
			t.Log(name, s.checkRun(t, c.goldenCase, controlGoldens, c.Model, o, inputs))
			if name == "copying" {
				s.inTwoPasses(t, c, o, inputs)
			}
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
		return
	}
	t.Error("no such run")
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

// TestLoneNetworks: a folder with a network that is taken for a ControlNet is refused by its class, and one of another kind is no model.
func TestLoneNetworks(t *testing.T) {
	dir := t.TempDir()
	for name, class := range map[string]string{"union": "ControlNetUnionModel", "t2i": "T2IAdapter", "unet": "UNet2DConditionModel"} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o700), os.WriteFile(filepath.Join(dir, name, "config.json"), []byte(`{"_class_name": "`+class+`"}`), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s := openStages(t, dir)[stage.KindDenoiser]
	for name, class := range map[string]string{"union": "ControlNetUnionModel", "t2i": "T2IAdapter"} {
		if m := s.model(name); m == nil || m.problem == nil || !strings.Contains(m.problem.Message, class) {
			t.Errorf("%s: %+v, want it refused by its class", name, m)
		}
	}
	if s.model("unet") != nil {
		t.Error("a U-Net alone is a model")
	}
}
