//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/internal/local"
)

// TestLoRA: pictures with two LoRAs, one named by a flag and one by a tag in the prompt, are those of the reference, beside a base that is
// held once; one for another model is refused before anything is drawn, by the field that names it.
func TestLoRA(t *testing.T) {
	goldens := filepath.Join("..", "testdata", "golden", "sdxl")
	data, err := os.ReadFile(filepath.Join(goldens, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	type run struct {
		ID, Prompt, Sampler, PNG string
		Negative                 string  `json:"negative_prompt"`
		Guidance                 float64 `json:"guidance_scale"`
		Steps, Width, Height     int
		Seed                     uint64
		LoRAs                    []struct {
			File  string
			Scale float64
		}
	}
	var index struct{ Runs []run }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.png")
	drawn := 0
	for _, r := range index.Runs {
		model, ok := map[string]string{"sd-lora-3": "tiny-sd15", "xl-lora-3": "tiny-sdxl"}[r.ID]
		if !ok {
			continue
		}
		drawn++
		models, names := []string{filepath.Join("testdata", "golden", "sdxl", model)}, []string{}
		for _, l := range r.LoRAs {
			models = append(models, filepath.Join("testdata", "golden", "sdxl", l.File))
			names = append(names, fmt.Sprintf("%s:%g", strings.TrimSuffix(filepath.Base(l.File), ".safetensors"), l.Scale))
		}
		args := []string{
			"generate", r.Prompt + " <lora:" + names[1] + ">", "-o", out, "--models", strings.Join(models, ","), "--model", model, "--lora", names[0], "--sampler", r.Sampler, "--steps", fmt.Sprint(r.Steps),
			"--guidance-scale", fmt.Sprint(r.Guidance), "--width", fmt.Sprint(r.Width), "--height", fmt.Sprint(r.Height), "--seed", fmt.Sprint(r.Seed), "--negative-prompt", r.Negative,
		}
		if got := runCommand(t, args...); got.code != 0 {
			t.Fatalf("%s: exit code %d: %s%s", r.ID, got.code, got.stdout, got.stderr)
		}
		compare(t, filepath.Join(goldens, r.PNG), out)
	}
	if drawn != 2 {
		t.Errorf("%d runs", drawn)
	}
	models := strings.Join([]string{filepath.Join("testdata", "golden", "sdxl", "tiny-sd15"), filepath.Join("testdata", "golden", "formats", "lora", "bad-sd2.safetensors")}, ",")
	if got := runCommand(t, "generate", "a house <lora:bad-sd2:1>", "-o", out, "--models", models, "--model", "tiny-sd15"); got.code != local.ExitHopeless || !strings.Contains(got.stderr, "options.loras") || !strings.Contains(got.stderr, "attn2_to_k") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}
