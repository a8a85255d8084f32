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
			for _, s := range []stage.Resident{encoder, denoiser, decoder} {
				if err := s.Load(t.Context(), stage.LoadRequest{Model: name}, nil); err != nil {
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

func open(t *testing.T, dirs ...string) (*Encoder, *Denoiser, *Decoder) {
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
	e, d, v := NewEncoder(o), NewDenoiser(o), NewDecoder(o)
	t.Cleanup(func() {
		for _, name := range library.Names() {
			for _, s := range []stage.Resident{e, d, v} {
				if _, err := s.Evict(context.Background(), stage.EvictRequest{Model: name}); err != nil {
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

func generate(t *testing.T, e stage.Encoder, d stage.Denoiser, v stage.Decoder, model string, r goldenRun) (stage.Latent, stage.Image) {
	t.Helper()
	prompts := []string{r.Prompt}
	if r.GuidanceScale > 1 {
		prompts = []string{r.NegativePrompt, r.Prompt}
	}
	conditioning, err := e.Encode(t.Context(), stage.EncodeRequest{Model: model, Prompts: prompts})
	if err != nil {
		t.Fatal(err)
	}
	info, err := v.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	factor := info.Models[0].SpatialFactor
	latent, err := d.Denoise(t.Context(), stage.DenoiseRequest{
		Model: model, Conditioning: conditioning, LatentHeight: r.Height / factor, LatentWidth: r.Width / factor,
		Steps: r.Steps, GuidanceScale: r.GuidanceScale, Sampler: r.Sampler, Seed: r.Seed,
	}, stage.DenoiseObserver{})
	if err != nil {
		t.Fatal(err)
	}
	img, err := v.Decode(t.Context(), stage.DecodeRequest{Model: model, Latent: latent})
	if err != nil {
		t.Fatal(err)
	}
	return latent, img
}

// compareRun checks a run against its golden and tells the errors.
func compareRun(t *testing.T, dir string, r goldenRun, latent stage.Latent, img stage.Image) string {
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
	return comparePicture(t, r.PNG+" "+r.Sampler, tensorOf(t, file, "latents."+last), floats(t, latent), reference, img.Data)
}

// comparePicture checks latents and a picture against the reference's and tells the errors.
func comparePicture(t *testing.T, name string, want, got []float32, reference, picture []byte) string {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: %d latents, want %d", name, len(got), len(want))
	}
	var diff, largest float64
	for i := range want {
		diff, largest = max(diff, math.Abs(float64(got[i]-want[i]))), max(largest, math.Abs(float64(want[i])))
	}
	relative := diff / largest
	if !(relative <= latentTolerance) {
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

func tensorOf(t *testing.T, file *weights.Set, name string) []float32 {
	t.Helper()
	dtype, shape, _ := file.Info(name)
	data, err := file.Data(name)
	if err != nil {
		t.Fatal(err)
	}
	var l stage.Latent
	l.DType, l.Shape, l.Data = dtype, shape, data
	return floats(t, l)
}

func floats(t *testing.T, l stage.Latent) []float32 {
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
