package stageengine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

// wildCase is a model whose configs diffusers has not saved itself, and what it draws from them; see
// testdata/golden/wild/make_wild.py.
type wildCase struct {
	goldenRun
	Name, Base  string
	DrawnWidth  int `json:"drawn_width"`
	DrawnHeight int `json:"drawn_height"`
	Edits       []edit
}

// edit is a key of one of a model's JSON files, changed or deleted.
type edit struct {
	File, Key string
	Value     json.RawMessage
	Delete    bool
}

// TestWildConfigs draws what diffusers draws from configs that it would have patched.
func TestWildConfigs(t *testing.T) {
	const dir = repo + "/testdata/golden/wild"
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Cases []wildCase }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Cases) < 70 {
		t.Fatalf("%d cases", len(index.Cases))
	}
	latents, err := weights.OpenFile(filepath.Join(dir, "latents.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer latents.Close()
	var table []string
	for _, c := range index.Cases {
		t.Run(c.Name, func(t *testing.T) {
			reference, err := os.ReadFile(filepath.Join(dir, c.Name+".png"))
			if err != nil {
				t.Fatal(err)
			}
			encoder, denoiser, decoder := open(t, edited(t, c.Base, c.Edits))
			for _, s := range []*Stage{encoder, denoiser, decoder} {
				if err := s.Load(t.Context(), stage.LoadRequest{Component: partOf(s, c.Base)}, nil); err != nil {
					t.Fatal(err)
				}
			}
			if c.Width == 0 {
				recipe := denoiser.model(c.Base).files.Recipes[0]
				width, _ := recipe.Option("width")
				height, _ := recipe.Option("height")
				c.Width, c.Height = int(width.Default.Int), int(height.Default.Int)
			}
			if c.Width != c.DrawnWidth || c.Height != c.DrawnHeight {
				t.Fatalf("a picture of %dx%d, want %dx%d", c.Width, c.Height, c.DrawnWidth, c.DrawnHeight)
			}
			c.Plain = true // there are prompts that are cut
			latent, img := generate(t, encoder, denoiser, decoder, c.Base, c.goldenRun)
			row := comparePicture(t, c.Name, latentTolerance, tensorOf(t, latents, c.Name), floats(t, latent), reference, img.Data)
			table = append(table, fmt.Sprintf("%-40s %s", c.Name, row))
		})
	}
	t.Logf("case, latents' largest error (allowed %g), PNG values off by one and by more:\n%s", latentTolerance, strings.Join(table, "\n"))
}

// TestWarningsOfAScheduler: what its class does not know is told, and a model without a sampler of its own says why.
func TestWarningsOfAScheduler(t *testing.T) {
	const file = "scheduler/scheduler_config.json"
	_, denoiser, _ := open(t, edited(t, "tiny-sd15", []edit{{File: file, Key: "eta", Value: []byte("0")}}))
	c := denoiser.books["tiny-sd15/unet"].component
	spec, _ := denoiser.model("tiny-sd15").files.Recipes[0].Option("sampler")
	if want := []string{file + `: ignores keys that its class does not have: "eta"`}; !slices.Equal(c.Warnings, want) {
		t.Errorf("warnings %q, want %q", c.Warnings, want)
	}
	if spec.Default.Text != "ddim" || spec.Problem != "" {
		t.Errorf("sampler %+v", spec)
	}

	encoder, denoiser, _ := open(t, edited(t, "tiny-sd15", []edit{{File: "model_index.json", Key: "scheduler", Value: []byte(`["diffusers", "KDPM2DiscreteScheduler"]`)}}))
	for _, s := range []*Stage{encoder, denoiser} {
		if err := s.Load(t.Context(), stage.LoadRequest{Component: partOf(s, "tiny-sd15")}, nil); err != nil {
			t.Fatal(err)
		}
	}
	c = denoiser.books["tiny-sd15/unet"].component
	spec, _ = denoiser.model("tiny-sd15").files.Recipes[0].Option("sampler")
	if (spec.Default != stage.Option{}) || !strings.Contains(spec.Problem, "KDPM2DiscreteScheduler") || len(spec.Choices) != len(sampler.Names()) ||
		len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], spec.Problem) {
		t.Errorf("%+v, %+v", c, spec)
	}
	states, err := encode(t.Context(), encoder, "tiny-sd15", "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = denoise(t.Context(), denoiser, denoising{Model: "tiny-sd15", States: states, H: 8, W: 8, Steps: 1}, stage.Observer{})
	var refused *stage.Error
	if !errors.As(err, &refused) || refused.Reason != stage.SamplerUnsupported || refused.Metadata["field"] != "sampler" ||
		!strings.Contains(refused.Message, "KDPM2DiscreteScheduler") || !strings.Contains(refused.Metadata["accepted"], "one of ddim, ") {
		t.Errorf("%v", err)
	}
}

// edited is a copy of a model of the goldens with some keys changed.
func edited(t *testing.T, base string, edits []edit) string {
	t.Helper()
	from, err := filepath.Abs(filepath.Join(repo, "testdata/golden", base))
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), base)
	if err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(from, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "golden":
			return filepath.SkipDir
		case d.IsDir():
			return os.Mkdir(filepath.Join(to, name), 0o700)
		case filepath.Ext(path) != ".json":
			return os.Symlink(path, filepath.Join(to, name))
		}
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), data, 0o600)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, e := range edits {
		path := filepath.Join(to, filepath.FromSlash(e.File))
		keys := map[string]json.RawMessage{}
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &keys)
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Delete {
			delete(keys, e.Key)
		} else {
			keys[e.Key] = e.Value
		}
		if data, err = json.Marshal(keys); err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}
