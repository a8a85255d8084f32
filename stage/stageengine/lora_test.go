package stageengine

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// loraCase is a run with LoRAs.
type loraCase struct {
	goldenCase
	LoRAs []struct {
		File  string
		Scale float64
	}
	Scale float64 `json:"lora_scale"`
}

// TestLoRACases draws every run with LoRAs, one and several, beside their base.
func TestLoRACases(t *testing.T) {
	runs, told := 0, ""
	for _, c := range indexed[loraCase](t, sdxlGoldens) {
		if c.Part != "lora" {
			continue
		}
		runs++
		dirs, o := c.request(t)
		told += openStages(t, dirs...).checkRun(t, c.goldenCase, sdxlGoldens, c.Model, o, nil)
	}
	if runs != 9 {
		t.Errorf("%d runs, want 9", runs)
	}
	t.Logf("run, latents' largest error (allowed %g), PNG values off by one and by more:\n%s", runTolerance, told)
}

// copied is the file of a row where it is alone, and the name that it has as a model.
func (f fileCase) copied(t *testing.T) (path, name string) {
	t.Helper()
	var file string
	var files []string
	if json.Unmarshal(f.File, &file) != nil {
		if err := json.Unmarshal(f.File, &files); err != nil {
			t.Fatal(err)
		}
		if len(files) == 0 {
			file = "../" + f.Ref
		}
	}
	from := filepath.Join(formatGoldens, file)
	if file == "" { // a folder: that of the first, or above it where there is one for each part
		from = filepath.Join(formatGoldens, filepath.Dir(files[0]))
		if len(files) > 2 {
			from = filepath.Dir(from)
		}
	}
	path = filepath.Join(t.TempDir(), filepath.Base(from))
	if file == "" {
		copyModel(t, from, path)
		return path, filepath.Base(path)
	}
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
}

// TestLoRAFiles: every file with a LoRA, as people have them, draws the picture of its run, or is refused by what it is.
func TestLoRAFiles(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(formatGoldens, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Files []fileCase }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	// What the errors tell, of files that are refused, or that may be and are.
	tells := map[string]string{
		"sd-twice": "one difference for a layer", "sd-ia3": "IA3", "sd-glora": "GLoRA",
		"sd-dora-out": "DoRA", "sd-dora-in": "DoRA", "sd-dora-scaled": "DoRA", "sd-peft-dora": "DoRA", "sd-diffusers-dora": "DoRA",
		"bad-sd2": "attn2_to_k\": expected a difference of [16, 32], got one of [16, 48]", "bad-flux-kohya": "double_blocks_0_img_attn_qkv\": expected a layer that the model has", "bad-flux-diffusers": "transformer.single_transformer_blocks", "bad-wan": "blocks.0.self_attn.q",
		"xl-kohya": "for another model", "sd-kohya": "for another model", "bad-nan": "NaN", "bad-inf": "Inf", "bad-alpha-nan": "NaN", "bad-rank-0": "rank 1 or more", "bad-no-up": "an up beside it", "bad-no-down": "a down beside it",
		"bad-ranks": "the rank of what is beside it", "bad-shape": "expected a difference of", "bad-unknown-module": "a layer that the model has", "bad-alpha-only": "tensors of its layer beside it",
		"bad-unknown-kind": "OFT", "bad-lllite": "LLLite", "bad-peft-bias": "biases of peft", "bad-hypernetwork": "hypernetwork",
	}
	runs := map[string]loraCase{}
	for _, dir := range []string{formatGoldens, sdxlGoldens} {
		for _, c := range indexed[loraCase](t, dir) {
			if dir == sdxlGoldens {
				c.ID = "sdxl:" + c.ID
			}
			runs[c.ID] = c
		}
	}
	told, n := "", 0
	for _, f := range index.Files {
		if f.Group != "lora" {
			continue
		}
		n++
		path, name := f.copied(t)
		s := openStages(t, filepath.Join(sdxlGoldens, strings.TrimPrefix(f.Base, "sdxl/")), path)
		c, drawn := runs[f.Run]
		if !drawn {
			c = runs["lora-rs"]
		}
		o := c.options(0)
		o["loras"] = stage.TextOption(fmt.Sprintf("%s:%g", name, f.Scale))
		why := ""
		for _, on := range s {
			if m := on.model(name); m.problem != nil {
				why = m.problem.Message
			}
			for _, b := range on.all() {
				if b.of.name == name && b.problem != nil {
					why = b.problem.Message
				}
			}
		}
		tell, refused := tells[name]
		if refused = refused && f.Expect != "equal" || strings.Contains(name, "dora"); f.Expect == "refuse" && !refused {
			t.Errorf("%s is to be refused", name)
		}
		if refused && why == "" {
			_, err := s.draw(t, s.recipe(filepath.Base(f.Base)), o, nil, 1)
			why = fmt.Sprint(err)
			var typed *stage.Error
			if !errors.As(err, &typed) {
				t.Errorf("%s: %v, want a typed error", name, err)
			}
		}
		switch {
		case !refused && why == "":
			c.ID = name
			of := formatGoldens
			if strings.HasPrefix(f.Run, "sdxl:") {
				of = sdxlGoldens
			}
			told += s.checkRun(t, c.goldenCase, of, filepath.Base(f.Base), o, nil)
		case !refused || !strings.Contains(why, tell):
			t.Errorf("%s: %q, want a refusal that tells %q (%s)", name, why, tell, f.Why)
		default:
			told += fmt.Sprintf("%-32s refused: %s\n", name, why)
		}
	}
	if n != 67 {
		t.Errorf("%d files", n)
	}
	t.Logf("file, latents' largest error (allowed %g), PNG values off by one and by more, or why it is refused:\n%s", runTolerance, told)
}

// request is the models of a run, and its options.
func (c loraCase) request(t *testing.T) (dirs []string, o stage.Options) {
	t.Helper()
	var names []string
	dirs, o = []string{c.folder(t, sdxlGoldens)}, c.options(0)
	for _, l := range c.LoRAs {
		dirs = append(dirs, filepath.Join(sdxlGoldens, l.File))
		names = append(names, fmt.Sprintf("%s:%g", strings.TrimSuffix(filepath.Base(l.File), ".safetensors"), l.Scale))
	}
	o["loras"] = stage.TextOption(strings.Join(names, ","))
	return dirs, o
}

// loraRun is a run with two LoRAs, its models and its options.
func loraRun(t *testing.T, id string) (c loraCase, dirs []string, o stage.Options) {
	t.Helper()
	for _, c := range indexed[loraCase](t, sdxlGoldens) {
		if c.ID == id {
			dirs, o = c.request(t)
			return c, dirs, o
		}
	}
	t.Fatalf("no run %s", id)
	return c, nil, nil
}

// TestLoRAPlans: turns with LoRAs take what they are planned to, to the byte.
func TestLoRAPlans(t *testing.T) {
	for _, id := range []string{"sd-lora-3", "xl-lora-3"} {
		c, dirs, o := loraRun(t, id)
		openStages(t, dirs...).checkPlans(t, c.ID, c.Model, o, nil, dirs...)
	}
}

// TestLoRAsElsewhere: pictures with LoRAs are the same with a base that is streamed, beside which LoRAs are whole, and on a device that
// has memory of its own.
func TestLoRAsElsewhere(t *testing.T) {
	c, dirs, o := loraRun(t, "xl-lora-3")
	elsewhere(t, dirs, func(name string, s stages) {
		t.Log(name, s.checkRun(t, c.goldenCase, sdxlGoldens, c.Model, o, nil))
	})
}

// TestLoRAsLeaveTheBase: other LoRAs and other weights of them load nothing of the base anew, and a picture without any is as it was before.
func TestLoRAsLeaveTheBase(t *testing.T) {
	c, dirs, with := loraRun(t, "sd-lora-3")
	s := openStages(t, dirs...)
	picture := func(loras string) string {
		o := maps.Clone(with)
		o["loras"] = stage.TextOption(loras)
		values, err := s.draw(t, s.recipe(c.Model), o, nil, c.Seed)
		if err != nil {
			t.Fatal(err)
		}
		latents, _ := values.Get("latents")
		return string(latents.Tensor.Data)
	}
	plain := picture("")
	base := s[stage.KindDenoiser].book(c.Model + "/unet")
	held, seen := base.weights, map[string]string{plain: "none"}
	for _, loras := range []string{"sd-kohya", "sd-kohya:0.5", "sd-kohya:0.5:1", "sd-kohya:1:0.5", "sd-peft:0.5", "sd-peft:0.5,sd-kohya:0.5"} {
		got := picture(loras)
		if other := seen[got]; other != "" {
			t.Errorf("%s draws what %s does", loras, other)
		}
		seen[got] = loras
		if base.weights != held {
			t.Errorf("%s: the base was loaded anew", loras)
		}
	}
	if picture("") != plain || picture("sd-kohya:0") != plain {
		t.Error("without LoRAs, or with one at 0, is another picture than before")
	}
	with["loras"] = stage.TextOption("sd-kohya:1:1:1")
	_, err := s.draw(t, s.recipe(c.Model), with, nil, c.Seed)
	var refused *stage.Error
	if !errors.As(err, &refused) || refused.Metadata["field"] != "loras" || !strings.Contains(refused.Message, "NAME:SCALE:SCALE") {
		t.Errorf("three weights: %v, want a refusal of loras", err)
	}
}
