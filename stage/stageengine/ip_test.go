package stageengine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// ipCase is a run under an IP-Adapter.
type ipCase struct {
	goldenCase
	IPAdapter struct {
		File, Encoder, Image string
		Scale                float64
	} `json:"ip_adapter"`
}

// adapterFolder makes a model of an IP-Adapter's file and its image encoder.
func adapterFolder(t *testing.T, file, encoder string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "face")
	data, err := os.ReadFile(file)
	if err == nil {
		err = errors.Join(os.Mkdir(dir, 0o700), os.CopyFS(filepath.Join(dir, "image_encoder"), os.DirFS(encoder)),
			os.WriteFile(filepath.Join(dir, "model_index.json"), []byte(`{"_class_name": "IPAdapter"}`), 0o600),
			os.WriteFile(filepath.Join(dir, "diffusion_pytorch_model"+filepath.Ext(file)), data, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// golden is a path that an index of dir names, of the other goldens behind "sdxl:".
func goldenPath(dir string, name ...string) string {
	path := filepath.Join(name...)
	if i := len("sdxl:"); len(name) > 0 && len(name[len(name)-1]) > i && name[len(name)-1][:i] == "sdxl:" {
		return filepath.Join(append(append([]string{sdxlGoldens}, name[:len(name)-1]...), name[len(name)-1][i:])...)
	}
	return filepath.Join(dir, path)
}

// TestIPAdapterCases draws every run under an IP-Adapter.
func TestIPAdapterCases(t *testing.T) {
	told := ""
	for dir, want := range map[string]int{sdxlGoldens: 4, formatGoldens: 1} {
		n := 0
		for _, c := range indexed[ipCase](t, dir) {
			if c.Part != "ip" {
				continue
			}
			n++
			adapter := adapterFolder(t, goldenPath(dir, c.IPAdapter.File), goldenPath(dir, c.IPAdapter.Encoder))
			picture, err := os.ReadFile(goldenPath(dir, "inputs", c.IPAdapter.Image))
			if err != nil {
				t.Fatal(err)
			}
			o := c.options(0)
			o["ip_adapter"] = stage.TextOption(fmt.Sprintf("face:%g", c.IPAdapter.Scale))
			inputs := stage.Values{{Name: "image_prompt", File: &stage.File{Media: "image/png", Data: picture}}}
			s := openStages(t, filepath.Join(sdxlGoldens, c.Model), adapter)
			told += s.checkRun(t, c.goldenCase, dir, c.Model, o, inputs)
		}
		if n != want {
			t.Errorf("%d runs of %s, want %d", n, dir, want)
		}
	}
	t.Logf("run, latents' largest error (allowed %g), PNG values off by one and by more:\n%s", runTolerance, told)
}
