package modeldir

import (
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

const repo = "../../.."

// Tolerances: the largest error allowed, as a share of the reference's largest absolute value. The
// reference computes in float32 and moves by about 1e-6 when its sums are reordered (measured
// against float64: up to 2.1e-6, the starter's decoder). A wrong activation, padding or order of
// skips moves it by more than 1e-3; a wrong epsilon of an autoencoder's or a layer norm by 1e-5,
// which only the tolerance of the float64 evaluation can see.
const (
	tolerance           = 5e-5
	definitionTolerance = 5e-6
)

// evaluator runs a tape of a network once and returns its outputs by name.
type evaluator func(t *testing.T, n *Network, tape *device.Tape, inputs map[string][]float32) map[string][]float32

func evaluators() map[string]evaluator {
	all := map[string]evaluator{definition: evaluateByDefinition}
	for _, variant := range kernel.Variants() {
		all["cpu-"+variant] = onCPU(variant)
	}
	return all
}

const definition = "definition"

func evaluateByDefinition(t *testing.T, n *Network, tape *device.Tape, inputs map[string][]float32) map[string][]float32 {
	t.Helper()
	out, err := devicetest.Evaluate(tape, n.Source(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// onCPU evaluates on the CPU device with one implementation of its kernels.
func onCPU(variant string) evaluator {
	return func(t *testing.T, n *Network, tape *device.Tape, inputs map[string][]float32) map[string][]float32 {
		t.Helper()
		chosen := kernel.Variant()
		if err := kernel.Select(variant); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = kernel.Select(chosen) }() // it was selected before
		d, err := cpu.New(cpu.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		return devicetest.Compute(t, d, tape, n.Source(), inputs)
	}
}

// golden compares with one file of reference tensors, which has images channels first.
type golden struct {
	file      *weights.Set
	tolerance float64
	rows      []string
}

// forEachModel runs f for every model with golden tensors and every way to evaluate a tape, and logs
// the table of errors.
func forEachModel(t *testing.T, f func(t *testing.T, d *StableDiffusion, g *golden, run evaluator)) {
	for model, tensors := range map[string]string{
		"testdata/golden/tiny-sd15": "testdata/golden/tiny-sd15/golden/tensors.safetensors",
		"testdata/golden/tiny-v":    "testdata/golden/tiny-v/golden/tensors.safetensors",
		"models/starter":            "testdata/golden/starter/tensors.safetensors",
	} {
		for name, run := range evaluators() {
			if name == definition && !strings.HasPrefix(model, "testdata/") {
				continue // minutes in float64; what the definition is for, the tiny networks show
			}
			t.Run(filepath.Base(model)+"/"+name, func(t *testing.T) {
				d, err := OpenStableDiffusion(filepath.Join(repo, model))
				if err != nil {
					t.Fatal(err)
				}
				file, err := weights.OpenFile(filepath.Join(repo, tensors))
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				g := &golden{file: file, tolerance: tolerance}
				if name == definition {
					g.tolerance = definitionTolerance
				}
				f(t, d, g, run)
				t.Logf("largest errors as a share of the reference's largest value (allowed %g):\n%s", g.tolerance, strings.Join(g.rows, "\n"))
			})
		}
	}
}

func (g *golden) tensor(t *testing.T, name string) ([]float32, tensor.Shape) {
	t.Helper()
	dtype, shape, ok := g.file.Info(name)
	data, err := g.file.Data(name)
	if !ok || err != nil {
		t.Fatalf("golden tensor %s: %v", name, err)
	}
	n, _ := shape.Elems()
	v := make([]float32, n)
	if dtype == tensor.I64 { // token ids
		for i := range v {
			v[i] = float32(binary.LittleEndian.Uint64(data[8*i:]))
		}
		return v, shape
	}
	if err := tensor.Widen(v, dtype, data); err != nil {
		t.Fatalf("golden tensor %s: %v", name, err)
	}
	if len(shape) == 4 {
		last := make([]float32, n)
		nn.ToChannelsLast(last, v, shape[0], shape[1], shape[2]*shape[3])
		v = last
	}
	return v, shape
}

// cases lists the tensors PREFIX*SUFFIX of the file without the suffix, sorted.
func (g *golden) cases(prefix, suffix string) []string {
	var out []string
	for _, name := range g.file.Names() {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, suffix) {
			out = append(out, strings.TrimSuffix(name, suffix))
		}
	}
	sort.Strings(out)
	return out
}

func (g *golden) compare(t *testing.T, name string, got []float32) {
	t.Helper()
	want, _ := g.tensor(t, name)
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", name, len(got), len(want))
		return
	}
	var diff, largest float64
	for i := range want {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if math.IsNaN(d) {
			d = math.Inf(1)
		}
		diff, largest = max(diff, d), max(largest, math.Abs(float64(want[i])))
	}
	g.rows = append(g.rows, fmt.Sprintf("  %-40s %.1e", name, diff/largest))
	if diff > g.tolerance*largest {
		t.Errorf("%s: largest error %.2e of the reference's largest value %.4g, allowed %g", name, diff/largest, largest, g.tolerance)
	}
}

func TestTextEncoderGolden(t *testing.T) {
	forEachModel(t, func(t *testing.T, d *StableDiffusion, g *golden, run evaluator) {
		e, err := d.TextEncoder()
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		ids, shape := g.tensor(t, "text.ids")
		tape := device.NewTape(e.manifest)
		tape.KeepMarks = true
		tape.Output(OutputStates, e.model.Forward(tape, tape.IDs(InputIDs, shape[0], shape[1])))
		out := run(t, &e.Network, tape, map[string][]float32{InputIDs: ids})
		g.compare(t, "text.penultimate", out[fmt.Sprintf("layer.%d", e.Config.Layers-2)])
		g.compare(t, "text.last_hidden_state", out[OutputStates])
	})
}

func TestDenoiserGolden(t *testing.T) {
	forEachModel(t, func(t *testing.T, d *StableDiffusion, g *golden, run evaluator) {
		u, err := d.Denoiser()
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		states, s := g.tensor(t, "text.last_hidden_state")
		tokens, width := s[1], s[2]
		context := states[:tokens*width] // of the first prompt
		cases := g.cases("unet.", ".sample")
		if len(cases) != 6 {
			t.Fatalf("%d cases, want 2 sizes at 3 timesteps", len(cases))
		}
		for _, key := range cases {
			sample, s := g.tensor(t, key+".sample")
			var h, w int
			var timestep float64
			if _, err := fmt.Sscanf(key, "unet.%dx%d.t%g", &h, &w, &timestep); err != nil {
				t.Fatal(err)
			}
			tape := device.NewTape(u.manifest)
			tape.KeepMarks = true
			tape.Output(OutputPrediction, u.model.Forward(tape, unet.Inputs{
				Latents: tape.Input(InputLatents, 1, h, w, s[1]), Time: tape.Input(InputTime, 1, u.Config.Channels[0]),
				Context: tape.Input(InputContext, 1, tokens, width),
			}))
			out := run(t, &u.Network, tape, map[string][]float32{InputLatents: sample, InputTime: u.Config.TimeInput(timestep), InputContext: context})
			for _, inner := range []string{"time_embedding", "conv_in", "resnet", "transformer", "down0", "mid", "up0"} {
				if timestep == 500 { // the one whose inner values are kept
					g.compare(t, key+".inner."+inner, out[inner])
				}
			}
			g.compare(t, key+".out", out[OutputPrediction])
		}
	})
}

// The two halves of a guided step run as one batch; each must come out as it does alone.
func TestDenoiserBatch(t *testing.T) {
	forEachModel(t, func(t *testing.T, d *StableDiffusion, g *golden, run evaluator) {
		u, err := d.Denoiser()
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		const key = "unet.12x20.t981"
		sample, s := g.tensor(t, key+".sample")
		states, c := g.tensor(t, "text.last_hidden_state")
		prompt := c[1] * c[2]
		tape, err := u.Tape(2, s[2], s[3], c[1])
		if err != nil {
			t.Fatal(err)
		}
		out := run(t, &u.Network, tape, map[string][]float32{
			InputLatents: append(append([]float32(nil), sample...), sample...),
			InputTime:    u.Config.TimeInput(981),
			InputContext: append(append([]float32(nil), states[prompt:2*prompt]...), states[:prompt]...),
		})[OutputPrediction]
		g.compare(t, key+".out", out[len(out)/2:])
	})
}

func TestAutoencoderGolden(t *testing.T) {
	forEachModel(t, func(t *testing.T, d *StableDiffusion, g *golden, run evaluator) {
		dec, err := d.ImageDecoder()
		if err != nil {
			t.Fatal(err)
		}
		defer dec.Close()
		enc, err := d.ImageEncoder()
		if err != nil {
			t.Fatal(err)
		}
		defer enc.Close()
		cases := g.cases("vae.", ".z")
		if len(cases) != 2 {
			t.Fatalf("%d cases, want 2 sizes", len(cases))
		}
		for _, key := range cases {
			z, s := g.tensor(t, key+".z")
			tape, err := dec.Tape(1, s[2], s[3])
			if err != nil {
				t.Fatal(err)
			}
			g.compare(t, key+".decoded", run(t, &dec.Network, tape, map[string][]float32{InputLatents: z})[OutputImage])

			image, s := g.tensor(t, key+".image")
			if tape, err = enc.Tape(1, s[2], s[3]); err != nil {
				t.Fatal(err)
			}
			g.compare(t, key+".moments", run(t, &enc.Network, tape, map[string][]float32{InputImage: image})[OutputMoments])
		}
	})
}
