package stageengine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

const repo = "../.."

// Tolerances of whole runs against diffusers, see testdata/golden/README.md: the reference itself
// moves by 1e-6 per network when its sums are reordered, and guidance and steps multiply that.
const (
	latentTolerance = 5e-4 // of the reference's largest latent
	pixelTolerance  = 1    // of 255
	pixelsEqual     = 0.98
)

type goldenRun struct {
	Sampler        string
	Prompt         string
	NegativePrompt string `json:"negative_prompt"`
	Steps          int
	GuidanceScale  float32 `json:"guidance_scale"`
	Width, Height  int
	Seed           uint64
	File, PNG      string
	Plain          bool // prompts as the reference's pipelines read them, where that matters
}

// TestGoldenRuns makes every picture of the goldens from its prompt.
func TestGoldenRuns(t *testing.T) {
	for model, golden := range map[string]string{
		"models/starter":            "testdata/golden/starter",
		"testdata/golden/tiny-sd15": "testdata/golden/tiny-sd15/golden",
		"testdata/golden/tiny-v":    "testdata/golden/tiny-v/golden",
	} {
		t.Run(filepath.Base(model), func(t *testing.T) {
			encoder, denoiser, decoder := open(t, filepath.Join(repo, model))
			name := filepath.Base(model)
			for _, s := range []*Stage{encoder, denoiser, decoder} {
				if err := s.Load(t.Context(), stage.LoadRequest{Component: partOf(s, name)}, nil); err != nil {
					t.Fatal(err)
				}
			}
			var table []string
			for _, r := range readRuns(t, filepath.Join(repo, golden)) {
				latent, img := generate(t, encoder, denoiser, decoder, name, r)
				table = append(table, fmt.Sprintf("%-9s %-16s %v", r.File[:5], r.Sampler, compareRun(t, filepath.Join(repo, golden), r, latent, img)))
			}
			t.Logf("run, sampler, latents' largest error (allowed %g), PNG values off by one and by more:\n%s", latentTolerance, strings.Join(table, "\n"))
		})
	}
}

func open(t *testing.T, dirs ...string) (*Stage, *Stage, *Stage) {
	t.Helper()
	library, err := OpenLibrary(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	device, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Library: library, Device: device, Host: "test", Version: "test"}
	e, d, v := newStage(stage.KindEncoder, o), newStage(stage.KindDenoiser, o), newStage(stage.KindDecoder, o)
	t.Cleanup(func() {
		for _, s := range []*Stage{e, d, v} {
			for _, b := range s.all() {
				if _, err := s.Evict(context.Background(), stage.EvictRequest{Component: b.component.Name}); err != nil {
					t.Error(err)
				}
			}
		}
		if used := device.Memory().UsedBytes; used != 0 {
			t.Errorf("%d bytes are left on the device", used)
		}
		if err := device.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, d, v
}

func readRuns(t *testing.T, dir string) []goldenRun {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Runs []goldenRun }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Runs) == 0 {
		t.Fatal("no golden runs")
	}
	return index.Runs
}

func generate(t *testing.T, e, d, v *Stage, model string, r goldenRun) (tensor.Tensor, *stage.File) {
	t.Helper()
	prompts := []string{r.Prompt}
	if r.GuidanceScale > 1 {
		prompts = []string{r.NegativePrompt, r.Prompt}
	}
	o := stage.Options{}
	if r.Plain {
		o["prompt_syntax"] = stage.TextOption("plain")
	}
	states, err := encodeAs(t.Context(), e, model, o, prompts...)
	if err != nil {
		t.Fatal(err)
	}
	f := factorOf(v, model)
	latents, err := denoise(t.Context(), d, denoising{
		Model: model, States: states, H: r.Height / f, W: r.Width / f, Steps: r.Steps, Guidance: r.GuidanceScale, Sampler: r.Sampler, Seed: r.Seed,
	}, stage.Observer{})
	if err != nil {
		t.Fatal(err)
	}
	img, err := decode(t.Context(), v, model, latents, "png", "")
	if err != nil {
		t.Fatal(err)
	}
	return latents, img
}

// compareRun checks a run against its golden and tells the errors.
func compareRun(t *testing.T, dir string, r goldenRun, latent tensor.Tensor, img *stage.File) string {
	t.Helper()
	file, err := weights.OpenFile(filepath.Join(dir, r.File))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	last := ""
	for _, name := range file.Names() {
		if n := len(strings.TrimPrefix(name, "latents.")); strings.HasPrefix(name, "latents.") && (n > len(last) || n == len(last) && name[8:] > last) {
			last = name[8:]
		}
	}
	reference, err := os.ReadFile(filepath.Join(dir, r.PNG))
	if err != nil {
		t.Fatal(err)
	}
	return comparePicture(t, r.PNG+" "+r.Sampler, latentTolerance, tensorOf(t, file, "latents."+last), floats(t, latent), reference, img.Data)
}

// comparePicture checks latents and a picture against the reference's and tells the errors.
func comparePicture(t *testing.T, name string, tolerance float64, want, got []float32, reference, picture []byte) string {
	t.Helper()
	relative := largestError(t, want, got)
	if !(relative <= tolerance) {
		t.Errorf("%s: latents are off by %.2g of the largest", name, relative)
	}
	a, b := pixels(t, reference), pixels(t, picture)
	if len(a) != len(b) {
		t.Fatalf("%s: %d values, want %d", name, len(b), len(a))
	}
	byOne, byMore := 0, 0
	for i := range a {
		switch d := int(a[i]) - int(b[i]); {
		case d > pixelTolerance || d < -pixelTolerance:
			byMore++
		case d != 0:
			byOne++
		}
	}
	if equal := 1 - float64(byOne+byMore)/float64(len(a)); byMore > 0 || equal < pixelsEqual {
		t.Errorf("%s: %d values are off by more than %d, %.2f%% are equal", name, byMore, pixelTolerance, 100*equal)
	}
	return fmt.Sprintf("%8.1e %6d %d", relative, byOne, byMore)
}

// largestError is a share of the largest value.
func largestError(t *testing.T, want, got []float32) float64 {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	var diff, largest float64
	for i := range want {
		diff, largest = max(diff, math.Abs(float64(got[i]-want[i]))), max(largest, math.Abs(float64(want[i])))
	}
	return diff / largest
}

func tensorOf(t *testing.T, file *weights.Set, name string) []float32 {
	t.Helper()
	dtype, shape, _ := file.Info(name)
	data, err := file.Data(name)
	if err != nil {
		t.Fatal(err)
	}
	return floats(t, tensor.Tensor{DType: dtype, Shape: shape, Data: data})
}

func floats(t *testing.T, l tensor.Tensor) []float32 {
	t.Helper()
	v, err := l.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func pixels(t *testing.T, file []byte) []byte {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	b := img.Bounds()
	out := make([]byte, 0, 3*b.Dx()*b.Dy())
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, bl, _ := img.At(x, y).RGBA()
			out = append(out, byte(r>>8), byte(g>>8), byte(bl>>8))
		}
	}
	return out
}
