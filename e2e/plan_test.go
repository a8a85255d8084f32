//go:build linux

package e2e

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// planned is one model of the output of `triptych plan --json`.
type planned struct {
	WidthPx          int   `json:"width_px"`
	HeightPx         int   `json:"height_px"`
	LeastBudgetBytes int64 `json:"least_budget_bytes"`
	AllBytes         int64 `json:"all_bytes"`

	LeastStreamedBudgetBytes int64 `json:"least_streamed_budget_bytes"`
	Stages                   []struct {
		Stage             string
		WeightsBytes      int64 `json:"weights_bytes"`
		MostScratchBytes  int64 `json:"most_scratch_bytes"`
		LeastScratchBytes int64 `json:"least_scratch_bytes"`
		ScratchBytes      int64 `json:"scratch_bytes"`
		SpillBytes        int64 `json:"spill_bytes"`
		StreamedBytes     int64 `json:"streamed_bytes"`
		Mode              string
		LoadRate          int64 `json:"load_bytes_per_second"`
		Measured          *measured
	}

	Model, Pipeline string
	Runs            bool
	Present         bool `json:"weights_present"`
	Mode            string
	Flags           []string
	Resident        []string
	Reloaded        []string
	ReloadBytes     int64    `json:"reload_bytes_per_image"`
	ReloadSeconds   *float64 `json:"reload_seconds_per_image"`
	StreamSeconds   *float64 `json:"stream_seconds_per_step"`

	Shared []struct { // of models together
		Stage  string
		Models []string
	}
	NotCompared []string `json:"not_compared"`
}

type measured struct {
	SampleBytes int64 `json:"sample_bytes"`
}

// plannedAll is all of it.
type plannedAll struct {
	Models   []planned
	Together *planned
}

func runPlans(t *testing.T, args ...string) (p plannedAll, raw string) {
	t.Helper()
	got := runCommand(t, append([]string{"plan", "--json"}, args...)...)
	if got.code != 0 {
		t.Fatalf("plan %v: exit code %d: %s", args, got.code, got.stderr)
	}
	if err := json.Unmarshal([]byte(got.stdout), &p); err != nil {
		t.Fatalf("%s: %v", got.stdout, err)
	}
	return p, got.stdout
}

// runPlan plans one model.
func runPlan(t *testing.T, args ...string) planned {
	t.Helper()
	p, raw := runPlans(t, args...)
	if len(p.Models) != 1 || p.Together != nil {
		t.Fatalf("plan %v: %s", args, raw)
	}
	return p.Models[0]
}

// wantUsage compares a plan with what the stages of a request said they took.
func wantUsage(t *testing.T, p planned, events []*triptychv1alpha1.GenerateResponse) {
	t.Helper()
	usage := events[len(events)-1].GetCompleted().GetStages()
	if len(usage) != len(p.Stages) {
		t.Fatalf("%d stages worked, %d are planned", len(usage), len(p.Stages))
	}
	for i, s := range p.Stages {
		if u := usage[i]; u.GetStage() != s.Stage || u.GetWeightsBytes() != s.WeightsBytes || u.GetScratchBytes() != s.ScratchBytes {
			t.Errorf("planned %+v, took %v", s, u)
		}
	}
}

// TestPlanWithAdapters: what adapters take is planned by the flags that a request has them by, and is what it then takes; a budget that
// the plan tells is enough for it.
func TestPlanWithAdapters(t *testing.T) {
	sdxl := filepath.Join("testdata", "golden", "sdxl")
	models := []string{"--models", strings.Join([]string{
		filepath.Join(sdxl, "tiny-sd15"), filepath.Join(sdxl, "control-sd-a"), filepath.Join(sdxl, "ip-adapter", "ip-adapter_tiny.safetensors"), filepath.Join(sdxl, "lora", "sd-kohya.safetensors"),
	}, ",")}
	size := []string{"--width", "64", "--height", "48"}
	adapters := []string{"--controlnet", "control-sd-a:0.7", "--ip-adapter", "ip-adapter_tiny:0.5", "--lora", "sd-kohya:0.8"}
	plain := runPlan(t, append(append([]string{"tiny-sd15"}, models...), size...)...)
	p := runPlan(t, append(append(append([]string{"tiny-sd15"}, models...), size...), adapters...)...)
	if len(p.Stages) != len(plain.Stages)+1 || p.AllBytes <= plain.AllBytes {
		t.Fatalf("planned %+v, without adapters %+v", p, plain)
	}
	most := map[string][2]int64{} // of each stage's turns, as a request tells it
	for _, s := range p.Stages {
		most[s.Stage] = [2]int64{max(most[s.Stage][0], s.WeightsBytes), max(most[s.Stage][1], s.ScratchBytes)}
	}
	s := up(t, append(models, "--memory-budget", strconv.FormatInt(p.LeastBudgetBytes, 10))...)
	input := func(name string) []byte { return readFile(t, filepath.Join("..", sdxl, "inputs", name)) }
	text := func(v string) *triptychv1alpha1.OptionValue {
		return &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Text{Text: v}}
	}
	events, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{
		Model: "tiny-sd15", Prompt: "a house", Steps: ptr(int32(2)), WidthPx: ptr(int32(64)), HeightPx: ptr(int32(48)),
		Inputs:  map[string][]byte{"control_image": input("edges-64x48.png"), "image_prompt": input("photo-90x70.png")},
		Options: map[string]*triptychv1alpha1.OptionValue{"controlnets": text("control-sd-a:0.7"), "ip_adapter": text("ip-adapter_tiny:0.5"), "loras": text("sd-kohya:0.8")},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range events[len(events)-1].GetCompleted().GetStages() {
		if want := most[u.GetStage()]; u.GetWeightsBytes() != want[0] || u.GetScratchBytes() != want[1] {
			t.Errorf("planned weights and scratch %v, took %v", want, u)
		}
		delete(most, u.GetStage())
	}
	if len(most) > 0 {
		t.Errorf("%v did not work", most)
	}
	if got := runCommand(t, append(append([]string{"plan", "tiny-sd15"}, models...), "--controlnet", "canny")...); got.code != 2 || !strings.Contains(got.stderr, "control-sd-a") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}

// TestLargeDecodeInBands: a budget that the decoder of a large image exceeds many times is enough where
// the denoiser's fits: the decoder works in bands, the picture is the same and the budget is kept.
func TestLargeDecodeInBands(t *testing.T) {
	size := []string{"starter", "--width", "512", "--height", "480"}
	whole := runPlan(t, size...)
	budget := whole.LeastBudgetBytes + 1<<20
	decoder := whole.Stages[2]
	if decoder.Mode != "whole" || decoder.WeightsBytes+decoder.ScratchBytes <= budget {
		t.Fatalf("a budget of %d is enough for %+v: the test shows nothing", budget, decoder)
	}
	limit := strconv.FormatInt(budget, 10)
	bands := runPlan(t, append(size, "--memory-budget", limit)...)
	if d := bands.Stages[2]; d.Mode != "in bands" || d.MostScratchBytes != decoder.ScratchBytes || d.SpillBytes == 0 ||
		d.ScratchBytes < d.LeastScratchBytes || d.WeightsBytes+d.ScratchBytes > budget || bands.Stages[1].Mode != "whole" {
		t.Errorf("planned %+v", bands)
	}

	spec := &triptychv1alpha1.GenerationSpec{Prompt: "pizza", Seed: ptr(uint64(7)), Steps: ptr(int32(1)), WidthPx: ptr(int32(512)), HeightPx: ptr(int32(480))}
	var pictures [2]string
	for i, c := range []struct {
		plan planned
		args []string
	}{{whole, nil}, {bands, []string{"--memory-budget", limit}}} {
		s := up(t, c.args...)
		events, err := s.generate(t.Context(), spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantUsage(t, c.plan, events)
		for _, e := range events {
			if r := e.GetResidency(); r.GetUsedBytes() > budget && i == 1 {
				t.Errorf("%d bytes are reserved of %d: %v", r.GetUsedBytes(), budget, r)
			}
		}
		if peak := events[len(events)-1].GetCompleted().GetPeakBytes(); peak > budget && i == 1 {
			t.Errorf("a peak of %d bytes, budget %d", peak, budget)
		}
		pictures[i] = writeImage(t, images(t, events)[0])
		s.stop(t)
	}
	want, got := values(t, pictures[0]), values(t, pictures[1])
	differ := 0
	for i := range want {
		d := int(want[i]) - int(got[i])
		if d > 1 || d < -1 {
			t.Fatalf("value %d is %d, whole it is %d", i, got[i], want[i])
		}
		if d != 0 {
			differ++
		}
	}
	t.Logf("budget %d, decoder whole %d: %d of %d values differ by one", budget, decoder.WeightsBytes+decoder.ScratchBytes, differ, len(want))
	if differ > len(want)/1000 {
		t.Errorf("%d of %d values differ", differ, len(want))
	}
}

// TestPlan: what a plan says of the model's own size is what a request takes; what cannot be is refused
// by name.
func TestPlan(t *testing.T) {
	p := runPlan(t, "starter")
	if p.WidthPx != 128 || p.HeightPx != 128 || len(p.Stages) != 3 {
		t.Errorf("%+v", p)
	}
	s := up(t)
	events, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(1))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantUsage(t, p, events)
	unguided := runPlan(t, "models/starter", "--guidance-scale", "1")
	if unguided.Stages[1].ScratchBytes >= p.Stages[1].ScratchBytes || unguided.Stages[2] != p.Stages[2] {
		t.Errorf("unguided %+v", unguided)
	}
	from := runPlan(t, "starter", "--inputs", "init_image")
	if len(from.Stages) != 4 || from.Stages[0] != p.Stages[0] || from.Stages[2] != p.Stages[1] || from.Stages[3] != p.Stages[2] || from.AllBytes <= p.AllBytes {
		t.Fatalf("from a picture %+v", from)
	}
	photo, err := os.ReadFile("../docs/starter.png")
	if err != nil {
		t.Fatal(err)
	}
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(2)), InitImage: photo, WidthPx: ptr(int32(128)), HeightPx: ptr(int32(128))}
	if events, err = s.generate(t.Context(), spec, nil); err != nil {
		t.Fatal(err)
	}
	looked := false
	for _, e := range events {
		if r := e.GetResidency(); r.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_GRANT && r.GetComponent() == "starter/vae.encoder" {
			looked = r.GetBytes() == from.Stages[1].WeightsBytes+from.Stages[1].ScratchBytes
		}
	}
	if !looked {
		t.Errorf("what looks at the picture was planned as %+v: %v", from.Stages[1], events)
	}
	if got := runCommand(t, "plan", "starter"); got.code != 0 || !strings.Contains(got.stdout, "decoder") || !strings.Contains(got.stdout, "smallest memory budget") {
		t.Errorf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
	got := runCommand(t, "plan", "starter", "--memory-budget", "10MB", "--resident-bytes", "all")
	if got.code != 3 || !strings.Contains(got.stdout, "does not fit") || !strings.Contains(got.stderr, "needs") {
		t.Errorf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
	for _, c := range []struct {
		args []string
		told string
	}{
		{nil, "expected 1 to 21 models"},
		{[]string{"starter", "models/starter"}, "named twice"},
		{[]string{"starter", "--load-bandwidth", "fast"}, "500MB/s"},
		{[]string{"starter", "--load-bandwidth", "0"}, "positive"},
		{[]string{"nope"}, "one of starter"},
		{[]string{"no/such"}, "no such file or directory"},
		{[]string{"starter", "--width", "100"}, "a multiple of 8 up to 4096 pixels, such as 96 or 104"},
		{[]string{"starter", "--height", "0"}, "height"},
		{[]string{"starter", "--width", "-32"}, "width"},
		{[]string{"starter", "--width", "100000"}, "up to"},
		{[]string{"starter", "--memory-budget", "much"}, "64MiB"},
		{[]string{"starter", "--resident-bytes", "unet=1MiB"}, "encoder, denoiser or decoder"},
		{[]string{"starter", "--resident-bytes", "denoiser=-1"}, "64MiB"},
	} {
		if got := runCommand(t, append([]string{"plan"}, c.args...)...); got.code != 2 || !strings.Contains(got.stderr, c.told) || got.stdout != "" {
			t.Errorf("plan %v: exit code %d: %s%s", c.args, got.code, got.stdout, got.stderr)
		}
	}
}

// writeImage makes a file of an image.
func writeImage(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out.png")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPrecision: the denoiser with int8 weights takes what the plan says, about half, and makes nearly the same picture.
func TestPrecision(t *testing.T) {
	stored := runPlan(t, "starter")
	args := []string{"--precision", "bf16", "--precision", "denoiser=int8"}
	int8s := runPlan(t, append([]string{"starter"}, args...)...)
	if a, b := stored.Stages[1].WeightsBytes, int8s.Stages[1].WeightsBytes; b > a*55/100 || stored.Stages[2].WeightsBytes != int8s.Stages[2].WeightsBytes {
		t.Errorf("stored %+v, with %v %+v", stored, args, int8s)
	}
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox on a blue background", Seed: ptr(uint64(42)), Steps: ptr(int32(8))}
	var pictures [2][]byte
	for i, args := range [][]string{nil, args} {
		s := up(t, args...)
		events, err := s.generate(t.Context(), spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			wantUsage(t, int8s, events)
		}
		pictures[i] = values(t, writeImage(t, images(t, events)[0]))
		s.stop(t)
	}
	sum := 0.0
	for i, v := range pictures[0] {
		d := float64(v) - float64(pictures[1][i])
		sum += d * d
	}
	// One prediction is off by some 1 % (TestPrecision of modeldir), 8 steps along a path that bends by at most a few times that.
	if rms := math.Sqrt(sum / float64(len(pictures[0]))); rms == 0 || rms > 0.05*255 {
		t.Errorf("the pictures differ by %.2f of 255", rms)
	} else {
		t.Logf("the pictures differ by %.2f of 255", rms)
	}
	for _, bad := range []string{"int9", "vae=int8", "denoiser="} {
		if got := runCommand(t, "plan", "starter", "--precision", bad); got.code != 2 || !strings.Contains(got.stderr, "expected") {
			t.Errorf("--precision %s: exit code %d, %s", bad, got.code, got.stderr)
		}
	}
}
