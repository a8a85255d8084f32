package infotext

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// txt2img is the graph that ComfyUI begins with, with two LoRAs and a shorter text encoder.
const txt2img = `{
  "3": {"inputs": {"seed": 156680208700286, "steps": 20, "cfg": 8.0, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0,
    "model": ["11", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}, "class_type": "KSampler", "_meta": {"title": "KSampler"}, "is_changed": [NaN]},
  "4": {"inputs": {"ckpt_name": "xl/v1-5-pruned-emaonly.safetensors"}, "class_type": "CheckpointLoaderSimple"},
  "5": {"inputs": {"width": 512, "height": ["12", 0], "batch_size": 1}, "class_type": "EmptyLatentImage"},
  "6": {"inputs": {"text": "a \"NaN\" hut [old], (red:1.2)", "clip": ["13", 0]}, "class_type": "CLIPTextEncode"},
  "7": {"inputs": {"text": ["14", 0], "clip": ["13", 0]}, "class_type": "CLIPTextEncode"},
  "9": {"inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}, "class_type": "SaveImage"},
  "10": {"inputs": {"lora_name": "styles\\ink.safetensors", "strength_model": 0.8, "strength_clip": 0.8, "model": ["4", 0], "clip": ["4", 1]}, "class_type": "LoraLoader"},
  "11": {"inputs": {"lora_name": "oil.safetensors", "strength_model": 1, "strength_clip": 0.5, "model": ["10", 0], "clip": ["10", 1]}, "class_type": "LoraLoader"},
  "12": {"inputs": {"value": 768}, "class_type": "PrimitiveInt"},
  "13": {"inputs": {"stop_at_clip_layer": -2, "clip": ["11", 1]}, "class_type": "CLIPSetLastLayer"},
  "14": {"inputs": {"value": "fog"}, "class_type": "PrimitiveString"}
}`

func TestParseComfyUI(t *testing.T) {
	p, notes, err := ParseComfyUI(txt2img)
	want := Parameters{`a "NaN" hut \[old\], (red:1.2) <lora:ink:0.8> <lora:oil:1>`, "fog", []Field{
		{"Steps", "20"},
		{"Sampler", "dpmpp_2m"},
		{"Schedule type", "karras"},
		{"CFG scale", "8.0"},
		{"Seed", "156680208700286"},
		{"Size", "512x768"},
		{"Model", "xl/v1-5-pruned-emaonly.safetensors"},
		{"Clip skip", "2"},
		{"Version", "ComfyUI"},
	}}
	if diff := cmp.Diff(want, p); diff != "" || err != nil || len(notes) != 1 || !strings.Contains(notes[0], "oil") {
		t.Errorf("%v, %q, %s", err, notes, diff)
	}
	photo := strings.NewReplacer("EmptyLatentImage", "VAEEncode", `"denoise": 1.0`, `"denoise": 0.6`).Replace(txt2img)
	if p, _, err := ParseComfyUI(photo); err != nil {
		t.Error(err)
	} else if s, _ := p.Get("Denoising strength"); s != "0.6" {
		t.Errorf("%+v", p)
	}
	advanced := strings.NewReplacer(`"KSampler", "_meta"`, `"KSamplerAdvanced", "_meta"`, `"seed"`, `"add_noise": "enable", "start_at_step": 0, "noise_seed"`).Replace(txt2img)
	if p, _, err := ParseComfyUI(advanced); err != nil || p.Fields[4] != want.Fields[4] {
		t.Errorf("%+v, %v", p, err)
	}
	for name, c := range map[string][3]string{ // what is replaced by what, and what is told
		"no JSON":             {txt2img, "x", "a graph of ComfyUI"},
		"two samplers":        {`"9": {`, `"20": {"class_type": "KSampler"}, "9": {`, "one with 2"},
		"no sampler":          {`"class_type": "KSampler"`, `"class_type": "Sampler"`, "one with 0"},
		"a custom sampler":    {`"class_type": "SaveImage"`, `"class_type": "SamplerCustomAdvanced"`, "SamplerCustomAdvanced"},
		"latents of another":  {"EmptyLatentImage", "LatentUpscale", "LatentUpscale"},
		"a model of another":  {"CheckpointLoaderSimple", "UNETLoader", "UNETLoader"},
		"a prompt of another": {`"CLIPTextEncode"`, `"ConditioningCombine"`, "ConditioningCombine"},
		"a value of another":  {`{"value": "fog"}`, `{"left": "fog"}`, "text of the"},
		"a circle of models":  {`"model": ["4", 0]`, `"model": ["10", 0]`, "CheckpointLoaderSimple"},
		"a circle of values":  {`"value": 768`, `"value": ["12", 0]`, "as a value"},
	} {
		text := strings.ReplaceAll(txt2img, c[0], c[1])
		if _, _, err := ParseComfyUI(text); !errors.As(err, new(*Error)) || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%s: %v, want %q", name, err, c[2])
		}
	}
}

// FuzzParseComfyUI: no graph makes it panic or go on for ever.
func FuzzParseComfyUI(f *testing.F) {
	f.Add(txt2img)
	f.Add(`{"3": {"class_type": "KSampler", "inputs": {"seed": ["3", 0], "model": ["3", 0]}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if _, _, err := ParseComfyUI(text); err != nil && !errors.As(err, new(*Error)) {
			t.Errorf("%T: %v", err, err)
		}
	})
}
