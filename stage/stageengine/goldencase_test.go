package stageengine

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// goldenCase is a run of an index.json, as testdata/golden/sdxl/README.md describes it: what it says becomes options and files of
// a request, whatever the model.
type goldenCase struct {
	ID, Part, Model, Kind, File, PNG string

	Prompt          string
	NegativePrompt  *string `json:"negative_prompt"`
	Prompt2         string  `json:"prompt_2"`
	NegativePrompt2 string  `json:"negative_prompt_2"`
	Sampler         string
	Steps           int
	GuidanceScale   float64 `json:"guidance_scale"`
	GuidanceRescale float64 `json:"guidance_rescale"`
	Width, Height   int
	Seed            uint64
	Strength        float64
	DenoisingEnd    float64 `json:"denoising_end"`
	ClipSkip        int     `json:"clip_skip"`
	Images          int     `json:"num_images_per_prompt"`
	Image, Mask     string
	Weights         bool // the prompts have them
	RestoreMean     bool `json:"restore_mean"`

	OriginalSize         []int `json:"original_size"`
	Crops                []int `json:"crops_coords_top_left"`
	TargetSize           []int `json:"target_size"`
	NegativeOriginalSize []int `json:"negative_original_size"`
	NegativeCrops        []int `json:"negative_crops_coords_top_left"`
	NegativeTargetSize   []int `json:"negative_target_size"`

	AestheticScore         float64 `json:"aesthetic_score"`
	NegativeAestheticScore float64 `json:"negative_aesthetic_score"`

	Refiner      string
	RefinerStart float64 `json:"refiner_start"`

	ForceZeros *bool                      `json:"force_zeros"`
	Scheduler  map[string]json.RawMessage `json:"scheduler_config"`
	Removed    []string                   `json:"scheduler_remove"` // keys of it
	VAE        map[string]json.RawMessage `json:"vae_config"`
}

const (
	formatGoldens = repo + "/testdata/golden/formats"
	moreGoldens   = repo + "/testdata/golden/xl-more"
)

// runTolerance is of the largest latent.
const runTolerance = 1e-4

// readCases are the runs of a golden's index that a test is for.
func readCases(t *testing.T, dir string, wanted func(goldenCase) bool) (out []goldenCase) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Runs []goldenCase }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	for _, c := range index.Runs {
		if wanted(c) {
			out = append(out, c)
		}
	}
	return out
}

// options are what the run says, by the names of options; image is which one of a batch.
func (c goldenCase) options(image int) stage.Options {
	o := stage.Options{
		"prompt": stage.TextOption(c.Prompt), "sampler": stage.TextOption(c.Sampler), "steps": stage.IntOption(int64(c.Steps)),
		"guidance_scale": stage.FloatOption(c.GuidanceScale), "width": stage.IntOption(int64(c.Width)), "height": stage.IntOption(int64(c.Height)),
	}
	o["prompt_syntax"] = stage.TextOption("plain")
	if c.Weights {
		o["prompt_syntax"], o["restore_mean"] = stage.TextOption("weights"), stage.BoolOption(c.RestoreMean)
	}
	if c.NegativePrompt != nil {
		o["negative_prompt"] = stage.TextOption(*c.NegativePrompt)
	}
	for name, v := range map[string]string{"prompt_2": c.Prompt2, "negative_prompt_2": c.NegativePrompt2} {
		if v != "" {
			o[name] = stage.TextOption(v)
		}
	}
	for name, v := range map[string]float64{"guidance_rescale": c.GuidanceRescale, "strength": c.Strength, "denoising_end": c.DenoisingEnd, "aesthetic_score": c.AestheticScore, "negative_aesthetic_score": c.NegativeAestheticScore} {
		if v != 0 {
			o[name] = stage.FloatOption(v)
		}
	}
	if c.Refiner != "" {
		o["refiner"] = stage.TextOption(fmt.Sprintf("%s:%g", c.Refiner, c.RefinerStart))
	}
	if c.ClipSkip != 0 {
		o["clip_skip"] = stage.IntOption(int64(c.ClipSkip))
	}
	if c.Images > 1 {
		o["batch_size"], o["batch_index"] = stage.IntOption(int64(c.Images)), stage.IntOption(int64(image))
	}
	for names, v := range map[[2]string][]int{
		{"original_height", "original_width"}: c.OriginalSize, {"crop_top", "crop_left"}: c.Crops, {"target_height", "target_width"}: c.TargetSize,
		{"negative_original_height", "negative_original_width"}: c.NegativeOriginalSize, {"negative_crop_top", "negative_crop_left"}: c.NegativeCrops,
		{"negative_target_height", "negative_target_width"}: c.NegativeTargetSize,
	} {
		if v != nil {
			o[names[0]], o[names[1]] = stage.IntOption(int64(v[0])), stage.IntOption(int64(v[1]))
		}
	}
	return o
}

// inputs are the files that the run begins with.
func (c goldenCase) inputs(t *testing.T, dir string) (out stage.Values) {
	t.Helper()
	for name, file := range map[string]string{"init_image": c.Image, "mask": c.Mask} {
		if file == "" {
			continue
		}
		data, err := os.ReadFile(either(dir, filepath.Join("inputs", file)))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, stage.Value{Name: name, File: &stage.File{Media: "image/png", Data: data}})
	}
	return out
}

// folder is the model of the run, a copy where the run changes its configs.
func (c goldenCase) folder(t *testing.T, dir string) string {
	t.Helper()
	base := bases[c.Model]
	if base == "" && c.ForceZeros == nil && c.Scheduler == nil && c.Removed == nil && c.VAE == nil {
		return either(dir, c.Model)
	}
	copied := filepath.Join(t.TempDir(), c.Model)
	if base != "" {
		copyModel(t, either(dir, base), copied)
	}
	copyModel(t, either(dir, c.Model), copied)
	if c.ForceZeros != nil && !*c.ForceZeros {
		if err := os.Rename(filepath.Join(copied, "model_index.noforce.json"), filepath.Join(copied, "model_index.json")); err != nil {
			t.Fatal(err)
		}
	}
	scheduler := filepath.Join(copied, "scheduler", "scheduler_config.json")
	for key, value := range c.Scheduler {
		editJSON(t, scheduler, key, value)
	}
	for key, value := range c.VAE {
		editJSON(t, filepath.Join(copied, "vae", "config.json"), key, value)
	}
	for _, key := range c.Removed {
		editJSON(t, scheduler, key, nil)
	}
	return copied
}

// folders are the models of the run, those that it draws with first.
func (c goldenCase) folders(t *testing.T, dir string) []string {
	t.Helper()
	models := []string{c.folder(t, dir)}
	if c.Refiner != "" {
		models = append(models, goldenCase{Model: c.Refiner}.folder(t, dir))
	}
	return models
}

// bases are the models that some have all from but their U-Net.
var bases = map[string]string{"tiny-sd15-inpaint": "tiny-sd15", "micro-inpaint": "micro-sd15", "tiny-sdxl-inpaint": "tiny-sdxl", "tiny-refiner": "tiny-sdxl"}

// copyModel copies the files of a model over those of another.
func copyModel(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(from, path)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// either is a path in a folder of goldens, or in that of sdxl.
func either(dir, path string) string {
	if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
		dir = sdxlGoldens
	}
	return filepath.Join(dir, path)
}

// editJSON sets a key of an object in a file; a nil value removes it.
func editJSON(t *testing.T, file, key string, value json.RawMessage) {
	t.Helper()
	data, err := os.ReadFile(file)
	var object map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(data, &object)
	}
	if err != nil {
		t.Fatal(err)
	}
	if object[key] = value; value == nil {
		delete(object, key)
	}
	if data, err = json.Marshal(object); err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
