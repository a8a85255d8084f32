//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/internal/local"
)

// upscalerFolder makes a folder with an upscaler of the goldens.
func upscalerFolder(t *testing.T, name, file string) string {
	t.Helper()
	dir := t.TempDir()
	data, err := os.ReadFile(file)
	if err == nil {
		err = errors.Join(os.Mkdir(filepath.Join(dir, name), 0o700),
			os.WriteFile(filepath.Join(dir, name, "model_index.json"), []byte(`{"_class_name": "Upscaler"}`), 0o600),
			os.WriteFile(filepath.Join(dir, name, "diffusion_pytorch_model.safetensors"), data, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestUpscale: the command finds the only upscaler and gives the reference's pixels, on a stack of its own and on a server; it says
// what it does not accept.
func TestUpscale(t *testing.T) {
	models := upscalerFolder(t, "four", filepath.Join(pictureGoldens, "esrgan", "x4-realsr.safetensors"))
	in, err := filepath.Abs(filepath.Join(pictureGoldens, "inputs", "small-22x18.png"))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.png")
	if got := runCommand(t, "upscale", in, out, "--models", models); got.code != 0 || !strings.Contains(got.stderr, "decoder upscale done") {
		t.Fatalf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
	compare(t, filepath.Join(pictureGoldens, "esrgan", "x4.png"), out)
	s := up(t, "--models", models)
	if got := runCommand(t, "upscale", in, out, "--server", s.addresses["orchestrator"], "--model", "four", "--scale", "4x", "--tile", "16"); got.code != 0 {
		t.Fatalf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
	compare(t, filepath.Join(pictureGoldens, "esrgan", "x4.png"), out)
	for want, args := range map[string][]string{
		"--scale twice":   {"--scale", "twice"},
		"upscale_tile":    {"--tile", "3"},
		"upscale_overlap": {"--tile", "32", "--overlap", "20"},
		"expected one of": {"--model", "none"},
	} {
		if got := runCommand(t, append([]string{"upscale", in, out, "--models", models}, args...)...); got.code != local.ExitHopeless || !strings.Contains(got.stderr, want) {
			t.Errorf("%q: exit code %d: %s, want %q", args, got.code, got.stderr, want)
		}
	}
	if got := runCommand(t, "upscale", in, out, "--models", "models"); got.code != local.ExitHopeless || !strings.Contains(got.stderr, "upscaler") {
		t.Errorf("without an upscaler: exit code %d: %s", got.code, got.stderr)
	}
}

// TestHires: the command draws in two passes what diffusers draws by txt2img, resize and img2img.
func TestHires(t *testing.T) {
	goldens := filepath.Join("..", "testdata", "golden", "hires")
	out := filepath.Join(t.TempDir(), "out.png")
	args := []string{
		"generate", "", "-o", out, "--model", filepath.Join("testdata", "golden", "sdxl", "tiny-sd15"), "--sampler", "euler", "--steps", "6", "--guidance-scale", "4",
		"--width", "64", "--height", "48", "--seed", "71", "--hires", "2x", "--hires-strength", "0.5",
	}
	args[1] = hiresPrompt(t, goldens)
	got := runCommand(t, args...)
	if got.code != 0 || !strings.Contains(got.stderr, "decoder enlarge done") {
		t.Fatalf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
	compare(t, filepath.Join(goldens, "sd.png"), out)
	if got := runCommand(t, "generate", "a house", "-o", out, "--hires-steps", "3"); got.code != local.ExitHopeless || !strings.Contains(got.stderr, "--hires beside it") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}

// hiresPrompt is that of the first run.
func hiresPrompt(t *testing.T, goldens string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(goldens, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Runs []struct{ Prompt string } }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	return index.Runs[0].Prompt
}
