//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/imaging"
)

// TestGenerateDrawsWhatDiffusersDraws is the first command of the README, for every golden run of the
// starter model.
func TestGenerateDrawsWhatDiffusersDraws(t *testing.T) {
	dir := "../testdata/golden/starter"
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Runs []struct {
			Sampler, Prompt string
			NegativePrompt  string `json:"negative_prompt"`
			Steps           int
			GuidanceScale   float64 `json:"guidance_scale"`
			Width, Height   int
			Seed            uint64
			PNG             string
		}
	}
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	for _, r := range index.Runs {
		out := filepath.Join(t.TempDir(), "out.png")
		got := runCommand(t, "generate", r.Prompt, "-o", out, "--negative-prompt", r.NegativePrompt, "--sampler", r.Sampler,
			"--steps", strconv.Itoa(r.Steps), "--guidance-scale", strconv.FormatFloat(r.GuidanceScale, 'g', -1, 64),
			"--width", strconv.Itoa(r.Width), "--height", strconv.Itoa(r.Height), "--seed", strconv.FormatUint(r.Seed, 10))
		if got.code != 0 {
			t.Fatalf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
		}
		for _, want := range []string{out, "seed " + strconv.FormatUint(r.Seed, 10), "encoder", "denoiser", "decoder"} {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("%q is not in what was told:\n%s", want, got.stdout)
			}
		}
		if !strings.Contains(got.stderr, "step "+strconv.Itoa(r.Steps)+"/"+strconv.Itoa(r.Steps)) {
			t.Errorf("no plain progress lines:\n%s", got.stderr)
		}
		compare(t, filepath.Join(dir, r.PNG), out)
		file, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		text, err := imaging.ReadText(file)
		if err != nil || len(text) != 1 || text[0].Key != "parameters" || !strings.HasPrefix(text[0].Value, r.Prompt) || !strings.Contains(text[0].Value, "Sampler: "+r.Sampler) {
			t.Errorf("text of the PNG: %v, %v", text, err)
		}
	}
}

// compare checks the tolerance of whole runs: within 1/255 everywhere and equal for 98 % of values.
func compare(t *testing.T, wantPath, gotPath string) {
	t.Helper()
	want, got := values(t, wantPath), values(t, gotPath)
	if len(want) != len(got) {
		t.Fatalf("%s has %d values, %s %d", wantPath, len(want), gotPath, len(got))
	}
	differ := 0
	for i := range want {
		if d := int(want[i]) - int(got[i]); d > 1 || d < -1 {
			t.Fatalf("%s: value %d is %d, want %d", wantPath, i, got[i], want[i])
		} else if d != 0 {
			differ++
		}
	}
	if differ > len(want)/50 {
		t.Errorf("%s: %d of %d values differ", wantPath, differ, len(want))
	}
	t.Logf("%s: %d of %d values differ by one", filepath.Base(wantPath), differ, len(want))
}

func values(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			r, g, b, _ := img.At(x, y).RGBA()
			out = append(out, byte(r>>8), byte(g>>8), byte(b>>8))
		}
	}
	return out
}

func TestGenerateSeveralAsJSON(t *testing.T) {
	dir := t.TempDir()
	got := runCommand(t, "generate", "pizza", "-o", filepath.Join(dir, "p.webp"), "--count", "2", "--seed", "5", "--steps", "4", "--preview", "2", "--json")
	if got.code != 0 {
		t.Fatalf("exit code %d: %s", got.code, got.stderr)
	}
	kinds := map[string]int{}
	sequence := 0
	for _, line := range strings.Split(strings.TrimSpace(got.stdout), "\n") {
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for key := range event {
			kinds[key]++
		}
		sequence++
		if event["sequence"] != strconv.Itoa(sequence) {
			t.Errorf("event %d has sequence %v", sequence, event["sequence"])
		}
	}
	if kinds["accepted"] != 1 || kinds["image_ready"] != 2 || kinds["completed"] != 1 || kinds["progress"] == 0 || kinds["stage_loading"] == 0 || kinds["residency"] == 0 {
		t.Errorf("events %v", kinds)
	}
	for _, name := range []string{"p-1.webp", "p-2.webp"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if p, err := imaging.Decode(data); err != nil || p.Height != 128 || p.Width != 128 {
			t.Errorf("%s: %dx%d, %v", name, p.Width, p.Height, err)
		}
	}
	previews, err := filepath.Glob(filepath.Join(dir, "p-*.preview.png"))
	if err != nil || len(previews) != kinds["preview"] { // one for each image, unless the decoder was busy
		t.Errorf("%d previews were told of, files %v, %v", kinds["preview"], previews, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".triptych-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

// TestModelDirectory: a model anywhere on the machine, named by its directory.
func TestModelDirectory(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.png")
	got := runCommand(t, "generate", "x", "-o", out, "--model", "testdata/golden/tiny-sd15", "--steps", "2", "--width", "32", "--height", "48")
	if got.code != 0 || !strings.Contains(got.stderr, "tiny-sd15 32x48") {
		t.Fatalf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
	if n := len(values(t, out)); n != 3*32*48 {
		t.Errorf("%d values", n)
	}
}

// TestModelPaths: a model is found whatever its folder is called.
func TestModelPaths(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `a,b "c" 'd'`)
	model := filepath.Join(dir, `x, "y" $z`)
	if err := os.CopyFS(model, os.DirFS("../testdata/golden/tiny-sd15")); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out, 1.png")
	for _, args := range [][]string{
		{"generate", "fox", "--steps", "1", "-o", out, "--model", model},
		{"generate", "fox", "--steps", "1", "-o", out, "--models", dir, "--model", filepath.Base(model)},
		{"generate", "fox", "--steps", "1", "-o", out, "--models", "testdata/golden/tiny-v,testdata/golden/tiny-sd15", "--models", model, "--model", filepath.Base(model)},
		{"models", "--models", dir},
		{"plan", model},
	} {
		if got := runCommand(t, args...); got.code != 0 || !strings.Contains(got.stdout+got.stderr, filepath.Base(model)) {
			t.Errorf("%q: exit code %d: %s%s", args, got.code, got.stdout, got.stderr)
		}
	}
}

// TestWildModel: no prompt, a size that no level of the U-Net halves evenly, and a scheduler of a class that we do not have.
func TestWildModel(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wild")
	if err := os.CopyFS(dir, os.DirFS("../testdata/golden/tiny-v")); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(dir, "model_index.json")
	data, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(index, bytes.Replace(data, []byte("DDIMScheduler"), []byte("KDPM2DiscreteScheduler"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.png")
	ask := []string{"generate", "", "-o", out, "--model", dir, "--steps", "2", "--width", "36", "--height", "28"}
	if got := runCommand(t, ask...); got.code != 2 || !strings.Contains(got.stderr, "KDPM2DiscreteScheduler") || !strings.Contains(got.stderr, "one of ddim, ") {
		t.Errorf("without a sampler: exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
	if got := runCommand(t, append(ask, "--sampler", "euler")...); got.code != 0 {
		t.Fatalf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
	if n := len(values(t, out)); n != 3*36*28 {
		t.Errorf("%d values", n)
	}
	if got := runCommand(t, "models", "--models", dir); got.code != 0 || !strings.Contains(got.stdout, "64x64") || !strings.Contains(got.stdout, "warning: wild/scheduler: ") {
		t.Errorf("models: exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	if got := runCommand(t, "plan", dir); got.code != 0 || !strings.Contains(got.stdout, "wild 64x64") {
		t.Errorf("plan: exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
}

// TestOutsideTheRepository: where there are no models, every command that needs one says what to do.
func TestOutsideTheRepository(t *testing.T) {
	for _, args := range [][]string{{"generate", "fox"}, {"generate", "fox", "--model", "starter"}, {"up"}, {"models"}, {"plan", "starter"}, {"encoder"}} {
		cmd := command(t, args...)
		cmd.Dir = t.TempDir()
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(out), "--model DIR") || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%q: exit code %d: %s", args, code, out)
		}
	}
}

func TestModelsAndVersion(t *testing.T) {
	got := runCommand(t, "models")
	if got.code != 0 || !strings.Contains(got.stdout, "starter") || !strings.Contains(got.stdout, "MiB") {
		t.Errorf("models: exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	if got := runCommand(t, "version"); got.code != 0 || !strings.HasPrefix(got.stdout, "triptych ") {
		t.Errorf("version: exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
}
