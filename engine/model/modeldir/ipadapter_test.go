package modeldir

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/ipadapter"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/weights"
)

const formatsGoldens = repo + "/testdata/golden/formats"

// forEachEvaluator runs f for every way to evaluate a tape, with the tolerance of it.
func forEachEvaluator(t *testing.T, f func(t *testing.T, run evaluator, tolerance float64)) {
	for name, run := range evaluators() {
		of := tolerance
		if name == definition {
			of = definitionTolerance
		}
		t.Run(name, func(t *testing.T) { f(t, run, of) })
	}
}

func TestVisionGolden(t *testing.T) {
	forEachEvaluator(t, func(t *testing.T, run evaluator, tolerance float64) {
		g := goldenSet(t, "tensors/ip-adapter.safetensors", tolerance)
		d := &Dir{path: filepath.Join(sdxlGoldens, "ip-adapter")}
		c, err := Config(d, ImageEncoderFolder, clip.ParseVisionConfig)
		if err != nil {
			t.Fatal(err)
		}
		e, err := d.VisionEncoder(ImageEncoderFolder, c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		pictures := []string{"photo-64x48", "photo-90x70"}
		var pixels []float32
		for _, p := range pictures {
			values, _ := g.tensor(t, p+".pixel_values")
			pixels = append(pixels, values...)
		}
		inputs := map[string][]float32{InputImage: pixels, InputClass: ids(Places(2, 0, 1)[:1], 2), InputPlaces: ids(Places(2, 1, c.Patches()), 1)}
		outputs := map[string][]float32{}
		for _, states := range []bool{true, false} {
			tape, err := e.Tape(2, states)
			if err != nil {
				t.Fatal(err)
			}
			for name, v := range run(t, &e.Network, tape, inputs) {
				outputs[name] = v
			}
		}
		tape := device.NewTape(e.Manifest())
		tape.KeepMarks = true
		e.model.Embed(tape, tape.Input(InputStates, 2, 1+c.Patches(), c.HiddenSize))
		last := run(t, &e.Network, tape, map[string][]float32{InputStates: outputs[OutputStates]})["last_hidden_state"]
		for i, p := range pictures {
			n := (1 + c.Patches()) * c.HiddenSize
			g.compare(t, p+".penultimate", outputs[OutputStates][i*n:][:n])
			g.compare(t, p+".last_hidden_state", last[i*n:][:n])
			g.compare(t, p+".image_embeds", outputs[OutputEmbeddings][i*(1+c.Patches())*c.Projection:][:c.Projection])
		}
		t.Logf("largest errors:\n%s", strings.Join(g.rows, "\n"))
	})
}

// ids are those of an input as the evaluators take them, so many times.
func ids(v []int32, times int) (out []float32) {
	for range times {
		for _, id := range v {
			out = append(out, float32(id))
		}
	}
	return out
}

// openAdapter declares an IP-Adapter over a file.
func openAdapter(t *testing.T, path string) *IPAdapter {
	t.Helper()
	set, err := weights.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Close() })
	c, err := ipadapter.Infer(set)
	if err != nil {
		t.Fatal(err)
	}
	s, a := nn.NewScope(set), &IPAdapter{Config: c, States: 1}
	a.model = ipadapter.New(s, c)
	if surplus, err := s.Finish(nil); err != nil || len(surplus) > 0 {
		t.Fatal(surplus, err)
	}
	a.Network = Network{manifest: s.Manifest(), tapes: &device.Tapes[tapeOf]{}, weights: set}
	return a
}

// The tokens of both kinds, of pictures and of what stands for none.
func TestIPAdapterGolden(t *testing.T) {
	forEachEvaluator(t, func(t *testing.T, run evaluator, tolerance float64) {
		g := goldenSet(t, "tensors/ip-adapter.safetensors", tolerance)
		plain := openAdapter(t, filepath.Join(sdxlGoldens, "ip-adapter", "ip-adapter_tiny.safetensors"))
		embedding, _ := g.tensor(t, "photo-64x48.image_embeds")
		tape, err := plain.Tape(2)
		if err != nil {
			t.Fatal(err)
		}
		out := run(t, &plain.Network, tape, map[string][]float32{InputStates: join(make([]float32, len(embedding)), embedding)})
		n := len(out[OutputTokens]) / 2
		g.compare(t, "zero.tokens", out[OutputTokens][:n])
		g.compare(t, "photo-64x48.tokens", out[OutputTokens][n:])
		if want := []ipadapter.Attention{{Number: 1, Width: 16}, {Number: 3, Width: 16}, {Number: 5, Width: 16}, {Number: 7, Width: 24}}; len(out) != 1+2*len(want) ||
			len(out[InputKeys(3)]) != 2*4*24 {
			t.Errorf("%d outputs, %d keys of the middle; attentions %v, want %v", len(out), len(out[InputKeys(3)]), plain.Config.Attentions, want)
		}

		plus := openAdapter(t, filepath.Join(formatsGoldens, "ip", "ip-adapter-plus_tiny.safetensors"))
		g = goldenSet(t, "../formats/tensors/ip-plus.safetensors", tolerance)
		states, s := g.tensor(t, "penultimate")
		zero, _ := g.tensor(t, "zero.penultimate")
		plus.States = s[1]
		if tape, err = plus.Tape(2); err != nil {
			t.Fatal(err)
		}
		out = run(t, &plus.Network, tape, map[string][]float32{InputStates: join(zero, states), InputQueries: ids(Places(1, 0, plus.Config.Tokens), 2)})
		n = len(out[OutputTokens]) / 2
		g.compare(t, "zero.tokens", out[OutputTokens][:n])
		g.compare(t, "tokens", out[OutputTokens][n:])
		t.Logf("largest errors:\n%s", strings.Join(g.rows, "\n"))
	})
}

// What is near to an IP-Adapter is refused by what it is, and one of other widths beside its model.
func TestIPAdapterRefuses(t *testing.T) {
	base, err := Config(&Dir{path: filepath.Join(sdxlGoldens, "tiny-sd15")}, "unet", unet.ParseConfig)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"bad-flux.safetensors": "FLUX", "bad-sdxl.safetensors": "9 attentions to the text, where the model has 4", "bad-one-layer-missing.safetensors": "ip_adapter.5 is missing",
		"bad-encoder-no-projection.safetensors": "image_proj",
	} {
		set, err := weights.OpenFile(filepath.Join(formatsGoldens, "ip", file))
		if err != nil {
			t.Fatal(err)
		}
		c, err := ipadapter.Infer(set)
		set.Close()
		got := ""
		var refused *ipadapter.Error
		if errors.As(err, &refused) {
			got = refused.Error()
		} else if err == nil {
			got = c.Fits(base)
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %q (%v), want one that tells %q", file, got, err, want)
		}
	}
	if why := openAdapter(t, filepath.Join(sdxlGoldens, "ip-adapter", "ip-adapter_tiny.safetensors")).Config.Fits(base); why != "" {
		t.Error(why)
	}
}
