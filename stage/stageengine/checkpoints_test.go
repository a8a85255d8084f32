package stageengine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// single copies a checkpoint to a folder of models, under a name, with the JSON files and tokenizers of a directory beside it and the weights
// of some of its networks.
func single(t *testing.T, folder, name, file, of string, weights ...string) {
	t.Helper()
	copied := func(from, to string) {
		t.Helper()
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o700)
		}
		if err == nil {
			err = os.WriteFile(to, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	copied(filepath.Join(formatGoldens, "checkpoints", file), filepath.Join(folder, name+filepath.Ext(file)))
	found, _ := filepath.Glob(filepath.Join(formatGoldens, of, "*", "*"))
	for _, f := range found {
		part := filepath.Base(filepath.Dir(f))
		if filepath.Ext(f) != ".safetensors" || slices.Contains(weights, part) {
			copied(f, filepath.Join(folder, name, part, filepath.Base(f)))
		}
	}
}

// Checkpoints that are one file, as people have them, draw what the golden's tables say.
func TestCheckpointsDraw(t *testing.T) {
	folder := t.TempDir()
	runs := []struct{ file, of, run, with string }{
		{"sd.safetensors", "micro-sd15", "ck-sd", ""},
		{"sd-with-ema.safetensors", "micro-sd15", "ck-sd", ""},
		{"sd-state-dict.ckpt", "micro-sd15", "ck-sd", ""},
		{"sd-bare-legacy.ckpt", "micro-sd15", "ck-sd", ""},
		{"sd-lightning.ckpt", "micro-sd15", "ck-sd", ""},
		{"sd-f32.safetensors", "micro-sd15", "ck-sd", ""},
		{"sd-f64-mixed.safetensors", "micro-sd15", "ck-sd", ""},
		{"sd-bf16.safetensors", "micro-sd15", "ck-sd-bf16", ""},
		{"sd-fp8.safetensors", "micro-sd15", "ck-sd-fp8", ""},
		{"sd-no-vae.safetensors", "micro-sd15", "ck-sd", "vae"},
		{"sd-no-te.safetensors", "micro-sd15", "ck-sd", "text_encoder"},
		{"sd-vae-without-prefix.safetensors", "micro-sd15", "ck-sd", ""},
		{"sd-te-old-names.safetensors", "micro-sd15", "ck-sd", ""},
		{"sd-position-ids-broken.safetensors", "micro-sd15", "ck-sd", ""},
		{"sd-no-position-ids.safetensors", "micro-sd15", "ck-sd", ""},
		{"sd-extras.safetensors", "micro-sd15", "ck-sd", ""},
		{"sd-inpaint.safetensors", "micro-sd15", "ck-inpaint", ""},
		{"sd2-v.safetensors", "micro-sd2", "ck-sd2-v", ""},
		{"sd2-base-modelspec.safetensors", "micro-sd2", "ck-sd2-eps", ""},
		{"xl.safetensors", "micro-sdxl", "ck-xl", ""},
		{"xl-te2-hf.safetensors", "micro-sdxl", "ck-xl", ""},
		{"xl-embed-extras.safetensors", "micro-sdxl", "ck-xl", ""},
		{"xl-v-pred.safetensors", "micro-sdxl", "ck-xl-v", ""},
		{"xl-v-pred-ztsnr.safetensors", "micro-sdxl", "ck-xl-v-ztsnr", ""},
		{"xl-v-modelspec.safetensors", "micro-sdxl", "ck-xl-v", ""},
	}
	name := func(file string) string { return strings.TrimSuffix(file, filepath.Ext(file)) }
	for _, r := range runs {
		single(t, folder, name(r.file), r.file, r.of, r.with)
	}
	if err := os.WriteFile(filepath.Join(folder, "broken.safetensors"), []byte("<html>"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, told := openStages(t, folder), ""
	for _, r := range runs {
		for _, c := range readCases(t, formatGoldens, func(c goldenCase) bool { return c.ID == r.run }) {
			m := s[stage.KindDenoiser].model(name(r.file))
			if m == nil || m.problem != nil {
				t.Errorf("%s: %+v", r.file, m)
				continue
			}
			c.ID = r.file
			c.Model = name(r.file)
			told += c.check(t, formatGoldens, s, s.recipe(c.Model))
		}
	}
	t.Log(told)
	for kind, on := range s {
		if m := on.model("broken"); m == nil || m.problem == nil {
			t.Errorf("%v: a broken file is %+v, want a model with a problem", kind, m)
		}
	}
}

// A checkpoint with a NaN is refused when its part is loaded, by file and tensor.
func TestCheckpointWithNaN(t *testing.T) {
	folder := t.TempDir()
	single(t, folder, "nan", "sd-one-nan.safetensors", "micro-sd15", "vae", "text_encoder")
	_, d, _ := open(t, folder)
	err := d.Load(t.Context(), stage.LoadRequest{Component: partOf(d, "nan")}, nil)
	var told *stage.Error
	if !errors.As(err, &told) || told.Reason != stage.ModelInvalid || told.Metadata["tensor"] != "model.diffusion_model.out.2.bias" || told.Metadata["file"] != "nan" {
		t.Errorf("%v %+v", err, told)
	}
	if err == nil || !strings.Contains(err.Error(), `"model.diffusion_model.out.2.bias"`) || !strings.Contains(err.Error(), "NaN") {
		t.Errorf("%v, want an error with the tensor and NaN", err)
	}
}
