package infotext

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParse reads texts as programs write them.
func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want Parameters
	}{
		"Triptych": {
			"a (red:1.2) fox, at night <lora:ink:0.8>\nNegative prompt: fog, \"blur\"\nSteps: 4, Sampler: euler, CFG scale: 5, Seed: 7, Size: 32x24, Model: tiny, controlnets: \"a:0.8,b\", task: hires",
			Parameters{"a (red:1.2) fox, at night <lora:ink:0.8>", `fog, "blur"`, []Field{
				{"Steps", "4"}, {"Sampler", "euler"}, {"CFG scale", "5"}, {"Seed", "7"}, {"Size", "32x24"}, {"Model", "tiny"}, {"controlnets", "a:0.8,b"}, {"task", "hires"},
			}},
		},
		"AUTOMATIC1111": {
			"a castle on a hill,\nmorning <lora:castle:0.8>\nNegative prompt: blurry,\nugly\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 12345, Size: 512x768, " +
				"Model hash: abc123def0, Model: dreamer_8, VAE hash: 1234567890, VAE: ft-mse.safetensors, Denoising strength: 0.45, Clip skip: 2, ENSD: 31337, " +
				"Hires upscale: 2, Hires steps: 10, Hires upscaler: R-ESRGAN 4x+, Lora hashes: \"castle: deadbeef, other: 0123\", TI hashes: \"easynegative: c74b4e810b03\", Version: v1.10.1",
			Parameters{"a castle on a hill,\nmorning <lora:castle:0.8>", "blurry,\nugly", []Field{
				{"Steps", "20"},
				{"Sampler", "DPM++ 2M"},
				{"Schedule type", "Karras"},
				{"CFG scale", "7"},
				{"Seed", "12345"},
				{"Size", "512x768"},
				{"Model hash", "abc123def0"},
				{"Model", "dreamer_8"},
				{"VAE hash", "1234567890"},
				{"VAE", "ft-mse.safetensors"},
				{"Denoising strength", "0.45"},
				{"Clip skip", "2"},
				{"ENSD", "31337"},
				{"Hires upscale", "2"},
				{"Hires steps", "10"},
				{"Hires upscaler", "R-ESRGAN 4x+"},
				{"Lora hashes", "castle: deadbeef, other: 0123"},
				{"TI hashes", "easynegative: c74b4e810b03"},
				{"Version", "v1.10.1"},
			}},
		},
		"Forge": {
			"a lake\nSteps: 8, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 4, Size: 896x1152, Model hash: 01, Model: wide, Version: f2.0.1v1.10.1-previous-535, " +
				"ControlNet 0: \"Module: canny, Model: control_canny [6bbb60e7], Weight: 1.0, Guidance Start: 0.0\", Module 1: ae",
			Parameters{"a lake", "", []Field{
				{"Steps", "8"},
				{"Sampler", "Euler"},
				{"Schedule type", "Simple"},
				{"CFG scale", "1"},
				{"Distilled CFG Scale", "3.5"},
				{"Seed", "4"},
				{"Size", "896x1152"},
				{"Model hash", "01"},
				{"Model", "wide"},
				{"Version", "f2.0.1v1.10.1-previous-535"},
				{"ControlNet 0", "Module: canny, Model: control_canny [6bbb60e7], Weight: 1.0, Guidance Start: 0.0"},
				{"Module 1", "ae"},
			}},
		},
		"SD.Next, no negative prompt": {
			"an old man\nNegative prompt: \nSteps: 30, Size: 832x1216, Sampler: DPM++ 2M, Seed: 3873706916, CFG scale: 6, CFG rescale: 0.7, Model: faces_v24, App: SD.Next, Version: cb0eb55, " +
				"Operations: upscale; img2img, Hires steps: 20, Hires scale: 2, Hires strength: 0.3",
			Parameters{"an old man", "", []Field{
				{"Steps", "30"},
				{"Size", "832x1216"},
				{"Sampler", "DPM++ 2M"},
				{"Seed", "3873706916"},
				{"CFG scale", "6"},
				{"CFG rescale", "0.7"},
				{"Model", "faces_v24"},
				{"App", "SD.Next"},
				{"Version", "cb0eb55"},
				{"Operations", "upscale; img2img"},
				{"Hires steps", "20"},
				{"Hires scale", "2"},
				{"Hires strength", "0.3"},
			}},
		},
		"a saver of ComfyUI's": {
			"a hut\nNegative prompt: \nSteps: 25, Sampler: dpmpp_2m_karras, CFG scale: 8.0, Seed: 9007199254740993, Size: 512x512, Model hash: aa, Model: hut, Version: ComfyUI",
			Parameters{"a hut", "", []Field{
				{"Steps", "25"}, {"Sampler", "dpmpp_2m_karras"}, {"CFG scale", "8.0"}, {"Seed", "9007199254740993"}, {"Size", "512x512"}, {"Model hash", "aa"}, {"Model", "hut"}, {"Version", "ComfyUI"},
			}},
		},
		"JSON that nothing quotes": {
			"a hut\nSteps: 25, CFG scale: 3.5, Seed: 2, Civitai resources: [{\"type\":\"checkpoint\",\"id\":29}], Civitai metadata: {}, Created Date: 2024-11-02T10:11:12Z",
			Parameters{"a hut", "", []Field{
				{"Steps", "25"}, {"CFG scale", "3.5"}, {"Seed", "2"}, {"Civitai resources", `[{"type":"checkpoint","id":29}]`}, {"Civitai metadata", "{}"}, {"Created Date", "2024-11-02T10:11:12Z"},
			}},
		},
		"an extension's line behind": {
			"a red hut\nSteps: 25, CFG scale: 3.5, Seed: 2\nTemplate: \"a {red|blue} hut\"\n",
			Parameters{"a red hut", "", []Field{{"Steps", "25"}, {"CFG scale", "3.5"}, {"Seed", "2"}, {"Template", "a {red|blue} hut"}}},
		},
		"nothing but settings": {"Steps: 1, Sampler: Euler, Seed: 2", Parameters{"", "", []Field{{"Steps", "1"}, {"Sampler", "Euler"}, {"Seed", "2"}}}},
		"what has no key, and quotes that do not end": {
			"x\nSteps: 1, alone, Seed: 2, Note: \"half, more",
			Parameters{"x", "", []Field{{"Steps", "1"}, {"", "alone"}, {"Seed", "2"}, {"Note", `"half`}, {"", "more"}}},
		},
	} {
		got, err := Parse(c.text)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
	for name, text := range map[string]string{
		"a prompt": "a fox, at night", "nothing": "", "no UTF-8": "\xff\nSteps: 1, Sampler: Euler, Seed: 2", "too long": strings.Repeat("a", maxBytes) + "\nSteps: 1, Sampler: Euler, Seed: 2",
		"too many settings": "a\n" + strings.Repeat("a: b,", maxFields+1),
	} {
		if _, err := Parse(text); !errors.As(err, new(*Error)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Parse("a\n" + strings.Repeat("a: b,", maxFields)); err != nil {
		t.Error(err)
	}
}

func TestQuote(t *testing.T) {
	for value, want := range map[string]string{
		"euler": "euler", "Euler a": "Euler a", "a:0.8": `"a:0.8"`, "a,b": `"a,b"`, "a\nb": `"a\nb"`, `"a`: `"\"a"`, `a"b`: `a"b`, "": "", " a": `" a"`, "<b>": "<b>", "<b>:é": `"<b>:é"`, "[1]": "[1]",
	} {
		if got := Quote(value); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

// TestRoundTrip writes parameters that are put together from everything that means something in a text, and reads them again.
func TestRoundTrip(t *testing.T) {
	pieces := []string{"a fox", "\n", "Negative prompt:", "Negative prompt: ", " ", ",", ":", `"`, `\`, "Steps: 1, Sampler: b, Seed: 3", "{", "[1", "]", "}", "é", "\r", "\t", "prompt: x", "Seed: 4"}
	r := rand.New(rand.NewPCG(1, 2))
	text := func(not string) (s string) {
		for range r.IntN(6) {
			s += pieces[r.IntN(len(pieces))]
		}
		return strings.ReplaceAll(s, not, "")
	}
	for range 20000 {
		p := Parameters{Prompt: text("\x00"), Negative: text("\x00"), Fields: []Field{{"Steps", "20"}, {"Seed", "1"}, {"controlnets", text("\x00")}, {"Model", text("\x00")}}}
		got, err := Parse(p.String())
		if diff := cmp.Diff(p, got); diff != "" || err != nil {
			t.Fatalf("%q: %v %s", p.String(), err, diff)
		}
	}
	plain := Parameters{Prompt: "a: b, \"c\"\nd", Negative: "e\nf", Fields: []Field{{"Seed", "1"}, {"Model", "m"}}}
	if got, want := plain.String(), "a: b, \"c\"\nd\nNegative prompt: e\nf\nSeed: 1, Model: m"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// FuzzParse: no text makes it panic, or read what it would not write so that it reads it again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a\nNegative prompt: b\nSteps: 1, Sampler: \"a,b\", Seed: 2", "Seed: [{\"a\":1}], b: {", "a\nSteps: 1, x, : , \"\": 3\nTemplate: b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		p.Fields = slices.DeleteFunc(p.Fields, func(f Field) bool { return f.Key == "" || strings.ContainsAny(f.Key, "\r\n\v\f\u0085\u00a0") })
		p.Fields = append([]Field{{"Seed", "1"}}, p.Fields...)
		again, err := Parse(p.String())
		if diff := cmp.Diff(p, again); len(p.Fields) <= maxFields-2 && len(text) < maxBytes/8 && (diff != "" || err != nil) {
			t.Errorf("%q as %q: %v %s", text, p.String(), err, diff)
		}
	})
}
