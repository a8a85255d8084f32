//go:build linux

package e2e

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestFeatures: each row of docs/features.md is one picture, by the command and by the API, and no two rows are the same.
func TestFeatures(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "features.md"))
	if err != nil {
		t.Fatal(err)
	}
	models := adapterModels(t)
	golden := filepath.Join("..", "testdata", "golden")
	for to, from := range map[string]string{
		"style.safetensors": "sdxl/lora/xl-kohya.safetensors", "detail.safetensors": "sdxl/lora/xl-peft.safetensors", "4x.pth": "formats/upscalers/4x-params.pth",
		"embeddings/zoo-style-xl.safetensors": "sdxl/embeddings/zoo-style-xl.safetensors",
	} {
		copyFile(t, filepath.Join(golden, from), filepath.Join(models, to))
	}
	for name, from := range map[string]string{"xl": "tiny-sdxl", "refiner": "tiny-refiner", "canny": "control-xl-a", "face": "face-xl"} {
		if name == "face" {
			if err := os.RemoveAll(filepath.Join(models, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Rename(filepath.Join(models, from), filepath.Join(models, name)); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for to, from := range map[string]string{"photo.png": "photo-64x48.png", "mask.png": "mask-64x48.png", "edges.png": "edges-64x48.png"} {
		copyFile(t, filepath.Join(golden, "sdxl", "inputs", from), filepath.Join(dir, to))
	}
	s := up(t, "--models", models)
	defer s.stop(t)
	file := regexp.MustCompile(`<([a-z]+\.png)>`)
	seen := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| ([^|]+) \\| `(\"[^`]+)` \\| `([^`]+)` \\|$").FindAllStringSubmatch(string(page), -1) {
		what, flags, spec := row[1], row[2], row[3]
		out := filepath.Join(dir, "out.png")
		sh := exec.CommandContext(t.Context(), "sh", "-c", "triptych generate -o "+out+" --model xl --seed 7 --server "+s.addresses["orchestrator"]+" "+flags)
		sh.Dir, sh.Env = dir, []string{"PATH=" + filepath.Dir(program)}
		if told, err := sh.CombinedOutput(); err != nil {
			t.Errorf("%s: %v, %s", what, err, told)
			continue
		}
		byCommand, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		text := file.ReplaceAllStringFunc(spec, func(name string) string {
			data, err := os.ReadFile(filepath.Join(dir, strings.Trim(name, "<>")))
			if err != nil {
				t.Fatal(err)
			}
			return base64.StdEncoding.EncodeToString(data)
		})
		var req triptychv1alpha1.GenerateRequest
		if err := protojson.Unmarshal([]byte(`{"spec": {"model": "xl", "seed": 7, `+text+`}}`), &req); err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		events, err := s.generate(t.Context(), req.GetSpec(), nil)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if byAPI := images(t, events); len(byAPI) != 1 || !bytes.Equal(byAPI[0], byCommand) {
			t.Errorf("%s: the command's picture is not the API's", what)
		}
		if other := seen[string(byCommand)]; other != "" {
			t.Errorf("%s is the same as %s", what, other)
		}
		seen[string(byCommand)] = what
	}
	if len(seen) < 16 {
		t.Errorf("%d rows", len(seen))
	}
}

// copyFile copies a file to where there may be no folder yet.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err := errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, data, 0o600)); err != nil {
		t.Fatal(err)
	}
}
