//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/internal/local"
)

// TestFromPNG: a picture that Triptych made is repeated to the byte by what its file tells, with the files that it was drawn from, in
// every format and task; a flag makes it another one.
func TestFromPNG(t *testing.T) {
	sdxl := filepath.Join("testdata", "golden", "sdxl")
	input := func(name string) string { return filepath.Join(sdxl, "inputs", name) }
	models := strings.Join([]string{filepath.Join(sdxl, "tiny-sd15"), filepath.Join(sdxl, "control-sd-a"), filepath.Join(sdxl, "ip-adapter", "ip-adapter_tiny.safetensors"), filepath.Join(sdxl, "lora", "sd-kohya.safetensors")}, ",")
	tiny := []string{"--models", models}
	drawn := []string{"--model", "tiny-sd15", "--width", "64", "--height", "48", "--steps", "4", "--sampler", "euler_a"}
	for name, c := range map[string]struct {
		prompt, file string
		args         []string // of the first
		again        []string // of both
	}{
		"plain":                             {"a fox, (red:1.2): \"x\"\nNegative prompt: none, \\ [old:new:0.5]", "out.png", []string{"--negative-prompt", "fog\n", "--steps", "3", "--guidance-scale", "3.3", "--option", "restore_mean=false"}, nil},
		"no prompt, Turbo's way, as a JPEG": {"", "out.jpg", []string{"--steps", "2", "--guidance-scale", "0", "--width", "64", "--height", "48"}, nil},
		"from a picture, as a WebP":         {"a house", "out.webp", append(drawn, "--strength", "0.55"), append(tiny, "--init-image", input("photo-64x48.png"), "--mask", input("mask-64x48.png"))},
		"a sampler with a schedule":         {"a house", "out.png", []string{"--steps", "4", "--sampler", "euler", "--option", "schedule=karras"}, nil},
		"two passes":                        {"a house", "out.png", append(drawn, "--hires", "2x"), tiny},
		"two passes, with their own steps":  {"a house", "out.png", append(drawn, "--hires", "1.5x", "--hires-strength", "0.35", "--hires-steps", "9"), tiny},
		"adapters": {
			"a house", "out.png", append(drawn, "--controlnet", "control-sd-a:0.7:0:0.8", "--ip-adapter", "ip-adapter_tiny:0.6", "--lora", "sd-kohya:0.8:0.5"),
			append(tiny, "--control-image", input("edges-64x48.png"), "--image-prompt", input("photo-90x70.png")),
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			dir := t.TempDir()
			first, second := filepath.Join(dir, c.file), filepath.Join(dir, "again-"+c.file)
			draw := func(out string, args ...string) {
				t.Helper()
				if got := runCommand(t, append([]string{"generate", "-o", out}, args...)...); got.code != 0 || strings.Contains(got.stderr, "warning") {
					t.Fatalf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
				}
			}
			draw(first, append(append([]string{c.prompt}, c.args...), c.again...)...)
			draw(second, append([]string{"--from-png", first}, c.again...)...)
			if !bytes.Equal(readFile(t, first), readFile(t, second)) {
				t.Error("the picture is not the same")
			}
			draw(second, append([]string{"--from-png", first, "--seed", "2"}, c.again...)...)
			if bytes.Equal(readFile(t, first), readFile(t, second)) {
				t.Error("another seed makes the same picture")
			}
		})
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestFromPNGOfOthers: what another program wrote is drawn with what is here, and told; a model that is not here is an error.
func TestFromPNGOfOthers(t *testing.T) {
	dir := t.TempDir()
	out, ours := filepath.Join(dir, "out.png"), filepath.Join(dir, "ours.png")
	theirs := pictureWith(t, "a fox\nNegative prompt: fog\nSteps: 3, Sampler: Euler, Schedule type: Karras, CFG scale: 4, Seed: 9, Size: 128x128, Model hash: 0123456789, Model: starter, Clip skip: 2, ENSD: 31337, Version: v1.10.1")
	got := runCommand(t, "generate", "--from-png", theirs, "-o", out)
	if got.code != 0 || !strings.Contains(got.stderr, "ENSD") || !strings.Contains(got.stderr, "not its pixels") {
		t.Fatalf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
	got = runCommand(t, "generate", "a fox", "--negative-prompt", "fog", "--steps", "3", "--sampler", "euler_karras", "--guidance-scale", "4", "--seed", "9", "-o", ours, "--option", "clip_skip=1", "--option", "negative_clip_skip=1")
	if got.code != 0 || !bytes.Equal(readFile(t, out), readFile(t, ours)) {
		t.Errorf("exit code %d, or another picture: %s", got.code, got.stderr)
	}
	absent := pictureWith(t, "a fox\nSteps: 3, Sampler: Euler, CFG scale: 4, Seed: 9, Size: 128x128, Model: /etc/passwd, Version: 1")
	if got := runCommand(t, "generate", "--from-png", absent, "-o", out); got.code != local.ExitHopeless || !strings.Contains(got.stderr, `"passwd"`) || !strings.Contains(got.stderr, "--model") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if got := runCommand(t, "generate", "--from-png", filepath.Join("models", "starter", "model_index.json"), "-o", out); got.code != local.ExitHopeless || !strings.Contains(got.stderr, "a PNG, JPEG or WebP") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if got := runCommand(t, "generate", "-o", out); got.code != local.ExitHopeless || !strings.Contains(got.stderr, "expected one prompt") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}

// pictureWith is the file of a picture with a text.
func pictureWith(t *testing.T, text string) string {
	t.Helper()
	data, err := imaging.Encode(image.NewRGBA(image.Rect(0, 0, 8, 8)), imaging.Options{Format: imaging.PNG, Text: []imaging.Text{{Key: "parameters", Value: text}}})
	path := filepath.Join(t.TempDir(), "theirs.png")
	if err := errors.Join(err, os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}
