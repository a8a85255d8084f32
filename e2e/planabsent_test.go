//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestPlannedFlagsRun: where a budget is too small for all weights of a stage, the plan tells what is streamed, and with its
// flags a request takes what is planned.
func TestPlannedFlagsRun(t *testing.T) {
	budget := runPlan(t, "starter").LeastStreamedBudgetBytes + 3<<20
	p := runPlan(t, "starter", "--memory-budget", strconv.FormatInt(budget, 10))
	if !strings.HasPrefix(p.Mode, "streamed denoiser (") || p.Stages[1].Mode != "streamed" || p.Stages[0].Mode != "whole" ||
		!slices.Contains(p.Flags, "--memory-budget") || p.ReloadBytes == 0 || p.ReloadSeconds == nil || p.StreamSeconds == nil {
		t.Fatalf("planned %+v", p)
	}
	for _, s := range p.Stages { // each that is loaded again is measured by itself
		again := slices.Contains(p.Reloaded, s.Stage) || s.Mode == "streamed"
		if (s.LoadRate > 0) != again || (s.Measured != nil) != again || again && s.Measured.SampleBytes == 0 {
			t.Errorf("%v are loaded again: %+v", p.Reloaded, s)
		}
	}
	s := up(t, p.Flags...)
	events, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(1))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantUsage(t, p, events)
	if peak := events[len(events)-1].GetCompleted().GetPeakBytes(); peak > budget {
		t.Errorf("a peak of %d bytes, budget %d", peak, budget)
	}
	s.stop(t)

	// What the flags say is not exchanged.
	got := runCommand(t, "plan", "starter", "--memory-budget", strconv.FormatInt(budget, 10), "--resident-bytes", "denoiser=all")
	if got.code != 3 || !strings.Contains(got.stdout, "Mode: does not fit") {
		t.Errorf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
}

// absentModel is a small model of a class that Triptych cannot run yet: configs alone.
func absentModel(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tiny-flux")
	for name, text := range map[string]string{
		"model_index.json": `{"_class_name": "FluxPipeline", "text_encoder": ["transformers", "CLIPTextModel"], "text_encoder_2": ["transformers", "T5EncoderModel"],
			"transformer": ["diffusers", "FluxTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}`,
		"text_encoder/config.json":   `{"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 128, "vocab_size": 100}`,
		"text_encoder_2/config.json": `{"model_type": "t5", "d_model": 128, "d_ff": 256, "num_heads": 2, "num_layers": 2, "feed_forward_proj": "gated-gelu", "vocab_size": 100, "torch_dtype": "float32"}`,
		"transformer/config.json":    `{"num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 1, "num_single_layers": 1, "joint_attention_dim": 128, "pooled_projection_dim": 64}`,
		"vae/config.json": `{"block_out_channels": [32, 64], "latent_channels": 16, "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
			"up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"], "use_quant_conv": false, "use_post_quant_conv": false}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestPlanOfAbsentModels: a model that is not there, and that nothing here can run, is planned beside one that is.
func TestPlanOfAbsentModels(t *testing.T) {
	dir := absentModel(t)
	all, _ := runPlans(t, "starter", dir)
	starter, flux, together := all.Models[0], all.Models[1], all.Together
	if !starter.Runs || !starter.Present || starter.Model != "starter" || starter.Mode != "all resident" {
		t.Errorf("%+v", starter)
	}
	if flux.Runs || flux.Present || flux.Model != "tiny-flux" || flux.Pipeline != "FluxPipeline" || len(flux.Stages) != 3 || flux.Stages[1].LoadRate != 0 {
		t.Errorf("%+v", flux)
	}
	if together.LeastBudgetBytes != max(starter.LeastBudgetBytes, flux.LeastBudgetBytes) || together.AllBytes >= starter.AllBytes+flux.AllBytes ||
		together.AllBytes <= max(starter.AllBytes, flux.AllBytes) || len(together.Resident) != 6 || len(together.Reloaded) != 0 {
		t.Errorf("together %+v", together)
	}

	if len(together.Shared) != 0 || !slices.Equal(together.NotCompared, []string{"tiny-flux"}) {
		t.Errorf("shared are %v, not compared %v", together.Shared, together.NotCompared)
	}

	// In what the largest stage takes, others cannot stay.
	tight := strconv.FormatInt(together.LeastBudgetBytes, 10)
	all, _ = runPlans(t, "starter", dir, "--memory-budget", tight, "--load-bandwidth", "1MB/s")
	if p := all.Together; len(p.Reloaded) == 0 || p.ReloadSeconds == nil || *p.ReloadSeconds <= 0 || p.Mode == "all resident" {
		t.Errorf("together in %s bytes: %+v", tight, p)
	}
	for _, m := range all.Models {
		for _, s := range m.Stages {
			if s.LoadRate != 1_000_000 || s.Measured != nil {
				t.Errorf("%s: %+v", m.Model, s)
			}
		}
	}

	got := runCommand(t, "plan", dir)
	for _, told := range []string{"Weights are absent", "cannot run FluxPipeline yet", "no T5EncoderModel and no FluxTransformer2DModel", "lower bound", "(estimated)", "F32", "absent"} {
		if got.code != 0 || !strings.Contains(got.stdout, told) {
			t.Errorf("exit code %d, %q is not told: %s%s", got.code, told, got.stdout, got.stderr)
		}
	}
	var raw struct {
		Models []struct {
			Stages []struct {
				Estimated bool           `json:"scratch_estimated"`
				Formula   string         `json:"scratch_formula"`
				Conv      map[string]int `json:"convolutions"`
				Networks  []struct {
					Class         string
					Present, Runs bool
				}
			}
		}
	}
	_, text := runPlans(t, dir)
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, false} {
		s := raw.Models[0].Stages[i]
		if s.Estimated != want || (s.Formula != "") != want || (len(s.Conv) > 0) == want || len(s.Networks) != []int{2, 1, 1}[i] || s.Networks[0].Present {
			t.Errorf("stage %d: %+v", i, s)
		}
	}

	// It cannot be served, and what serves says so.
	if got := runCommand(t, "generate", "fox", "--model", dir); got.code == 0 || !strings.Contains(got.stderr, "a pipeline that can be run, got FluxPipeline") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if err := os.Remove(filepath.Join(dir, "transformer/config.json")); err != nil {
		t.Fatal(err)
	}
	if got := runCommand(t, "plan", dir); got.code != 3 || !strings.Contains(got.stderr, "transformer/config.json") || got.stdout != "" {
		t.Errorf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
}
