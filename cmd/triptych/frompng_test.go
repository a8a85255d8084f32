package main

import (
	"bytes"
	"image"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/triptych-serving/triptych/engine/imaging"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// picture writes a file with a text.
func picture(t *testing.T, format imaging.Format, key, text string) string {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 8, 8))
	for i := range img.Pix {
		img.Pix[i] = 0xff
	}
	data, err := imaging.Encode(img, imaging.Options{Format: format, Text: []imaging.Text{{Key: key, Value: text}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "picture"+format.Ext())
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// asked is the request that a picture makes beside some arguments, with its options written as NAME=VALUE and its warnings.
func asked(t *testing.T, path string, args ...string) (spec *triptychv1alpha1.GenerationSpec, options, warnings []string, err error) {
	t.Helper()
	var f generateFlags
	var errs bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetErr(&errs)
	cmd.SetContext(t.Context())
	f.add(cmd)
	if err := cmd.ParseFlags(append([]string{"--from-png", path}, args...)); err != nil {
		t.Fatal(err)
	}
	prompt, err := f.repeat(cmd)
	if err != nil {
		return nil, nil, nil, err
	}
	if spec, err = f.spec(cmd, prompt); err != nil {
		t.Fatal(err)
	}
	spec.Output, spec.Preview, spec.InitImage = nil, nil, nil
	for _, o := range f.picture.options {
		options = append(options, o.name+"="+o.value)
	}
	return spec, options, strings.Split(strings.TrimSuffix(errs.String(), "\n"), "\n"), nil
}

// request is a spec of numbers that pictures of these tests have.
func request(prompt, negative, model, sampler string, steps, width, height int32, scale float32, seed uint64) *triptychv1alpha1.GenerationSpec {
	return &triptychv1alpha1.GenerationSpec{
		Prompt: prompt, NegativePrompt: negative, Model: model, Sampler: sampler, Steps: &steps, WidthPx: &width, HeightPx: &height, GuidanceScale: &scale, Seed: &seed,
	}
}

func float(x float64) *triptychv1alpha1.OptionValue {
	return &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Float{Float: x}}
}

// TestFromPNG: settings become the request that they mean, flags come before them, and what is not honoured is told.
func TestFromPNG(t *testing.T) {
	const a1111 = "a hut\nNegative prompt: fog\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 11, Size: 512x768, Model hash: abc123def0, Model: dreamer_8"
	plain := func() *triptychv1alpha1.GenerationSpec {
		return request("a hut", "fog", "dreamer_8", "dpmpp_2m_karras", 20, 512, 768, 7, 11)
	}
	const similar = "not its pixels"
	for name, c := range map[string]struct {
		text     string
		args     []string
		want     func() *triptychv1alpha1.GenerationSpec
		options  []string
		warnings []string // parts of each, in order
	}{
		"A1111": {text: a1111 + ", Version: v1.10.1", want: plain, warnings: []string{similar}},
		"flags come first": {
			text: a1111, args: []string{"--steps", "4", "--sampler", "euler", "--seed", "3", "--model", "x", "--negative-prompt", "", "--width", "64"},
			want:     func() *triptychv1alpha1.GenerationSpec { return request("a hut", "", "x", "euler", 4, 64, 768, 7, 3) },
			warnings: []string{similar},
		},
		"two passes": {
			text: a1111 + ", Denoising strength: 0.4, Hires upscale: 1.5, Hires steps: 10, Hires upscaler: R-ESRGAN 4x+, Hires sampler: Euler, Hires prompt: \"a, b\", Hires CFG Scale: 7",
			want: func() *triptychv1alpha1.GenerationSpec {
				p := plain()
				p.Task, p.Options = taskHires, map[string]*triptychv1alpha1.OptionValue{
					"hires_scale": float(1.5), "hires_strength": float(0.4), "hires_steps": {Value: &triptychv1alpha1.OptionValue_Int{Int: 25}},
					"hires_upscaler": {Value: &triptychv1alpha1.OptionValue_Text{Text: "RealESRGAN_x4plus"}},
				}
				return p
			},
			warnings: []string{"Hires sampler: Euler", "Hires prompt: a, b", similar},
		},
		"two passes to a size": {
			text: a1111 + ", Denoising strength: 0.3, Hires resize: 1024x0, Hires upscaler: Lanczos",
			want: func() *triptychv1alpha1.GenerationSpec {
				p := plain()
				p.Task, p.Options = taskHires, map[string]*triptychv1alpha1.OptionValue{
					"hires_scale": float(2), "hires_strength": float(0.3), "hires_steps": {Value: &triptychv1alpha1.OptionValue_Int{Int: 67}},
				}
				return p
			},
			warnings: []string{similar},
		},
		"from a picture that is not there": {text: a1111 + ", Denoising strength: 0.4", want: plain, warnings: []string{"Denoising strength: 0.4", similar}},
		"from a picture": {
			text: a1111 + ", Denoising strength: 0.4", args: []string{"--init-image", "INIT"},
			want: func() *triptychv1alpha1.GenerationSpec {
				p := plain()
				p.Strength = new(float64)
				*p.Strength = 0.4
				return p
			},
			warnings: []string{similar},
		},
		"what is not honoured": {
			text: a1111 + ", ENSD: 31337, Eta: 0.67, Variation seed: 4, Variation seed strength: 0.1, Clip skip: 2, VAE: mse.pt, Emphasis: No norm, Refiner: sd_xl_refiner_1.0 [7440042bbd], " +
				"Refiner switch at: 0.8, ControlNet 0: \"Module: canny, Weight: 1\", Tiling: False, Face restoration: CodeFormer, RNG: CPU, alone",
			want:     plain,
			options:  []string{"clip_skip=1", "negative_clip_skip=1", "restore_mean=false", "refiner=sd_xl_refiner_1.0:0.8"},
			warnings: []string{"ENSD: 31337", "Eta: 0.67", "Variation seed: 4", "VAE: mse.pt", "ControlNet 0: Module: canny", "Face restoration: CodeFormer", "alone", similar},
		},
		"words that are none": {
			text: "a hut AND a tree <hypernet:x:1>\nNegative prompt: fog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 11, Size: 512x768, Model: folder\\dreamer_8.safetensors [abc], Version: 1",
			want: func() *triptychv1alpha1.GenerationSpec {
				p := plain()
				p.Prompt, p.Sampler = "a hut AND a tree <hypernet:x:1>", "euler_a"
				return p
			},
			warnings: []string{"AND", "<hypernet:x:1>", similar},
		},
		"a hash alone": {
			text: "a hut\nNegative prompt: fog\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 11, Size: 512x768, Model hash: abc123def0",
			want: func() *triptychv1alpha1.GenerationSpec {
				p := plain()
				p.Model = ""
				return p
			},
			warnings: []string{"Model hash: abc123def0", similar},
		},
		"SD.Next": {
			text: "a hut\nNegative prompt: fog\nSteps: 20, Size: 512x768, Sampler: DPM++ 2M, Scheduler: DPMSolverMultistepScheduler, Seed: 11, CFG scale: 7, CFG rescale: 0.7, Model: dreamer_8, " +
				"App: SD.Next, Version: cb0eb55, Parser: native, Operations: txt2img, Sampler sigma: karras",
			want: plain, options: []string{"guidance_rescale=0.7"}, warnings: []string{similar},
		},
		"ours": {
			text: "a hut\nNegative prompt: fog\nSteps: 20, Sampler: dpmpp_2m_karras, CFG scale: 7, Seed: 11, Size: 512x768, Model: a/b.safetensors, clip_skip: 1, controlnets: \"a:0.8,b\", hires_steps: 3, task: hires",
			want: func() *triptychv1alpha1.GenerationSpec {
				p := plain()
				p.Model, p.Task = "a/b.safetensors", taskHires
				return p
			},
			options: []string{"clip_skip=1", "controlnets=a:0.8,b", "hires_steps=3"},
		},
		"ours, with a schedule": {
			text: "a hut\nNegative prompt: fog\nSteps: 20, Sampler: dpmpp_2m, Schedule type: karras, CFG scale: 7, Seed: 11, Size: 512x768, Model: dreamer_8, eta: 0.5",
			want: func() *triptychv1alpha1.GenerationSpec {
				p := plain()
				p.Sampler = "dpmpp_2m"
				return p
			},
			options: []string{"schedule=karras", "eta=0.5"},
		},
		"ours, by another sampler": {
			text: "a hut\nNegative prompt: fog\nSteps: 20, Sampler: dpmpp_2m, Schedule type: karras, CFG scale: 7, Seed: 11, Size: 512x768, Model: dreamer_8", args: []string{"--sampler", "ddim"},
			want: func() *triptychv1alpha1.GenerationSpec {
				p := plain()
				p.Sampler = "ddim"
				return p
			},
		},
		"A1111's with as few settings as ours": {
			text: "a hut\nNegative prompt: fog\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 11, Size: 512x768, Model: dreamer_8", want: plain, warnings: []string{similar},
		},
		"ours, from a picture that is not there": {
			text: "a hut\nNegative prompt: fog\nSteps: 20, Sampler: dpmpp_2m_karras, CFG scale: 7, Seed: 11, Size: 512x768, Model: dreamer_8, Denoising strength: 0.8", want: plain,
			warnings: []string{"Denoising strength: 0.8"},
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			for _, format := range []imaging.Format{imaging.PNG, imaging.JPEG, imaging.WEBP} {
				path := picture(t, format, "parameters", c.text)
				args := slices.Clone(c.args)
				for i := range args {
					args[i] = strings.ReplaceAll(args[i], "INIT", path)
				}
				spec, options, warnings, err := asked(t, path, args...)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(c.want(), spec, protocmp.Transform()); diff != "" {
					t.Error(diff)
				}
				if !slices.Equal(options, c.options) {
					t.Errorf("options %q, want %q", options, c.options)
				}
				warnings = slices.DeleteFunc(warnings, func(w string) bool { return w == "" })
				if !slices.EqualFunc(warnings, c.warnings, strings.Contains) {
					t.Errorf("warnings %q, want %q", warnings, c.warnings)
				}
			}
		})
	}
}

// TestFromPNGRefuses: what would make another picture for certain is an error that names it.
func TestFromPNGRefuses(t *testing.T) {
	const rest = ", CFG scale: 7, Seed: 11, Size: 512x768, Model: m"
	for text, want := range map[string]string{
		"a\nSteps: 20, Sampler: DPM++ 3M SDE, Schedule type: Turbo" + rest:                     `"Sampler: DPM++ 3M SDE" with schedule "Turbo"`,
		"a\nSteps: many, Sampler: Euler" + rest:                                                `"Steps: many": expected a whole number`,
		"a\nSteps: 20, Sampler: Euler, Seed: -1, CFG scale: 7":                                 `"Seed: -1"`,
		"a\nSteps: 20, Sampler: Euler, Size: large" + ", Seed: 1":                              `"Size: large"`,
		"a\nSteps: 20, Sampler: Euler, Clip skip: two" + rest:                                  `"Clip skip: two"`,
		"a\nSteps: 20, Sampler: Euler" + rest + ", Hires upscale: 2, Hires upscaler: Latent":   `"Hires upscaler: Latent"`,
		"a\nSteps: 20, Sampler: Euler" + rest + ", Hires resize: 1024x1024, Hires upscaler: x": `"Hires resize: 1024x1024"`,
		"Seed: 1, Model: m, task: upscale":                                                     `"task: upscale"`,
		"a fox, at night":                                                                      "a line of settings",
		"a\nSteps: 20, Sampler: \"Euler\x1b[2J\", Schedule type: \"a\x1b[2J\", CFG scale: 1":   `\x1b[2J`,
	} {
		if _, _, _, err := asked(t, picture(t, imaging.PNG, "parameters", text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for key, want := range map[string]string{"workflow": `got "workflow"`, "prompt": "a graph of ComfyUI"} {
		if _, _, _, err := asked(t, picture(t, imaging.PNG, key, "x")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", key, err, want)
		}
	}
	if _, _, _, err := asked(t, picture(t, imaging.JPEG, "nothing", "x")); err == nil || !strings.Contains(err.Error(), "how it was made") {
		t.Error(err)
	}
}

// TestFromPNGOptions: options have the types of the model, those that are given stay, and what the model has not is refused or told.
func TestFromPNGOptions(t *testing.T) {
	option := func(as triptychv1alpha1.Option_Type) *triptychv1alpha1.Option {
		return &triptychv1alpha1.Option{Type: as}
	}
	known := map[string]*triptychv1alpha1.Option{"clip_skip": option(triptychv1alpha1.Option_TYPE_INT), "negative_clip_skip": option(triptychv1alpha1.Option_TYPE_INT), "rescale": option(triptychv1alpha1.Option_TYPE_FLOAT)}
	apply := func(text string, spec *triptychv1alpha1.GenerationSpec) (string, error) {
		var f generateFlags
		cmd := &cobra.Command{}
		f.add(cmd)
		cmd.SetErr(&bytes.Buffer{})
		f.picture.file = picture(t, imaging.PNG, "parameters", text)
		if _, err := f.repeat(cmd); err != nil {
			t.Fatal(err)
		}
		var told bytes.Buffer
		err := f.picture.apply(spec, known, &told)
		return told.String(), err
	}
	spec := &triptychv1alpha1.GenerationSpec{Options: map[string]*triptychv1alpha1.OptionValue{"rescale": float(0.25)}}
	if _, err := apply("a\nSteps: 1, Sampler: euler, Seed: 1, Model: m, clip_skip: 3, rescale: 0.5", spec); err != nil || spec.Options["clip_skip"].GetInt() != 3 || spec.Options["rescale"].GetFloat() != 0.25 {
		t.Errorf("%v, %v", spec, err)
	}
	for text, want := range map[string]string{"clip_skip: many": "type int", "frames: 3": `frames = "3"`} {
		if _, err := apply("a\nSteps: 1, Sampler: euler, Seed: 1, Model: m, "+text, &triptychv1alpha1.GenerationSpec{}); stage.ReasonOf(err) != stage.InvalidField || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	known["prompt_2"] = option(triptychv1alpha1.Option_TYPE_TEXT)
	spec = &triptychv1alpha1.GenerationSpec{}
	if told, err := apply("a\nSteps: 1, Sampler: Euler, Seed: 1, Model: m, Clip skip: 2, CFG rescale: 0.7", spec); err != nil || len(spec.Options) > 0 ||
		!strings.Contains(told, "Clip skip: 2") || !strings.Contains(told, "CFG rescale: 0.7") {
		t.Errorf("a model with two encoders: %v, %v, told %q", spec, err, told)
	}
}

func TestWholeSteps(t *testing.T) {
	for taken := 1; taken <= 60; taken++ {
		for _, share := range []string{"0.1", "0.3", "0.35", "0.7", "1"} {
			text, ok := wholeSteps(stage.IntOption(int64(taken)).String(), share)
			var n, x float64
			for _, p := range []struct {
				to   *float64
				from string
			}{{&n, text}, {&x, share}} {
				v, err := optionValue(triptychv1alpha1.Option_TYPE_FLOAT, p.from)
				if err != nil {
					t.Fatal(err)
				}
				*p.to = v.GetFloat()
			}
			if !ok || int(n*x) != taken || int((n-1)*x) >= taken {
				t.Errorf("%d at %s: of %s", taken, share, text)
			}
		}
	}
	if _, ok := wholeSteps("0", "0.3"); ok {
		t.Error("no steps")
	}
}
