package stageengine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

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

// goldenPath is a path that an index in dir names, of the other goldens behind "sdxl:".
func goldenPath(dir, name string) string {
	if other, ok := strings.CutPrefix(name, "sdxl:"); ok {
		return filepath.Join(sdxlGoldens, other)
	}
	return filepath.Join(dir, name)
}

// TestAdapterFiles: every file with a ControlNet or an IP-Adapter, as people have them, draws the picture of its run, or is refused by what
// it is.
func TestAdapterFiles(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(formatGoldens, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Files []fileCase }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	// What the errors tell beside the index's words, and files that may be refused and are.
	tells := map[string]string{
		"sd-difference": "differences from a U-Net's weights", "bad-control-lora": "control-LoRA", "bad-union": "union", "bad-t2i-adapter": "T2I-Adapter",
		"bad-t2i-adapter-diffusers": "T2I-Adapter", "bad-lllite": "LLLite", "bad-one-missing": "control_model.zero_convs.2.0.weight", "bad-hed": "HED",
		"xl-diffusers": "cross_attention_dim 20, where the model has 8", "training-pytorch_model": "checkpoint of training", "bad-faceid": "FaceID", "bad-faceid-plus": "FaceID Plus", "bad-full-face": "full faces",
		"bad-sdxl": `"ip_adapter.1.to_k_ip.weight" is misshapen: expected [24, 32], got [24, 80]`, "bad-one-layer-missing": "ip_adapter.5 is missing", "bad-flux": "FLUX",
	}
	runs := map[string]controlCase{}
	for _, dir := range []string{formatGoldens, sdxlGoldens} {
		for _, c := range indexed[controlCase](t, dir) {
			if dir == sdxlGoldens {
				c.ID = "sdxl:" + c.ID
			}
			runs[c.ID] = c
		}
	}
	told, n := "", 0
	for _, f := range index.Files {
		var file string
		if json.Unmarshal(f.File, &file) != nil || f.Group != "control" && f.Group != "ip" || strings.Contains(file, "encoder") {
			continue
		}
		n++
		name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		path := filepath.Join(t.TempDir(), filepath.Base(file))
		data, err := os.ReadFile(filepath.Join(formatGoldens, file))
		if err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
		if f.Group == "ip" && err == nil {
			err = os.CopyFS(filepath.Join(filepath.Dir(path), "image_encoder"), os.DirFS(filepath.Join(sdxlGoldens, "ip-adapter", "image_encoder")))
		}
		if err != nil {
			t.Fatal(err)
		}
		base, goldens := filepath.Join(formatGoldens, f.Base), formatGoldens
		if rest, ok := strings.CutPrefix(f.Base, "sdxl/"); ok {
			base, goldens = filepath.Join(sdxlGoldens, rest), sdxlGoldens
		}
		s := openStages(t, base, path)
		c, drawn := runs[f.Run]
		if !drawn {
			c = runs[map[string]string{"control": "cn-sd", "ip": "sdxl:sd-ip-0"}[f.Group]]
		}
		o, inputs := c.request(t, filepath.Join(goldens, "inputs"))
		for _, option := range []string{"controlnets", "ip_adapter"} {
			if choices := o.Chosen(option); len(choices) > 0 {
				choices[0].Name = name
				o[option] = stage.TextOption(choices[0].String())
			}
		}
		why := ""
		for _, on := range s {
			if m := on.model(name); m.problem != nil {
				why = m.problem.Message
			}
			for part := range map[string]bool{"controlnet": true, "ip_adapter": true} {
				if b := on.book(name + "/" + part); b != nil && b.problem != nil {
					why = b.problem.Message
				}
			}
		}
		if why == "" && strings.Contains(f.Expect, "refuse") && f.Expect != "equal-or-refuse" {
			_, err := s.draw(t, s.recipe(filepath.Base(f.Base)), o, inputs, 1)
			why = fmt.Sprint(err)
		}
		tell := tells[name]
		switch {
		case f.Expect == "equal" || f.Expect == "equal-or-refuse" && tell == "":
			if why != "" {
				t.Errorf("%s: %s", file, why)
				continue
			}
			c.ID = file
			of := formatGoldens
			if strings.HasPrefix(f.Run, "sdxl:") {
				of = sdxlGoldens
			}
			told += s.checkRun(t, c.goldenCase, of, filepath.Base(f.Base), o, inputs)
		case why == "" || tell == "" || !strings.Contains(why, tell):
			t.Errorf("%s: %q, want a refusal that tells %q (%s)", file, why, tell, f.Why)
		default:
			told += fmt.Sprintf("%-32s refused: %s\n", file, why)
		}
	}
	if n != 27 {
		t.Errorf("%d files", n)
	}
	t.Logf("file, latents' largest error (allowed %g), PNG values off by one and by more, or why it is refused:\n%s", runTolerance, told)
}

// TestImageEncoders: an image encoder may be a torch file; one of another kind, or without a projection, is refused.
func TestImageEncoders(t *testing.T) {
	var run controlCase
	for _, c := range indexed[controlCase](t, sdxlGoldens) {
		if c.ID == "sd-ip-0" {
			run = c
		}
	}
	adapter, configs := filepath.Join(sdxlGoldens, "ip-adapter", "ip-adapter_tiny.safetensors"), filepath.Join(formatGoldens, "ip", "encoder-bin")
	o, inputs := run.request(t, filepath.Join(sdxlGoldens, "inputs"))
	s := openStages(t, filepath.Join(sdxlGoldens, run.Model), adapterFolder(t, adapter, configs))
	t.Log(s.checkRun(t, run.goldenCase, sdxlGoldens, run.Model, o, inputs))
	for file, tell := range map[string]string{
		"encoder-open_clip.safetensors": "open_clip", "bad-encoder-no-projection.safetensors": "without visual_projection", "": "nothing",
	} {
		dir := adapterFolder(t, adapter, configs)
		encoder := filepath.Join(dir, "image_encoder")
		if err := os.Remove(filepath.Join(encoder, "pytorch_model.bin")); err != nil {
			t.Fatal(err)
		}
		if file == "" {
			if err := os.RemoveAll(encoder); err != nil {
				t.Fatal(err)
			}
		} else if data, err := os.ReadFile(filepath.Join(formatGoldens, "ip", file)); err != nil || os.WriteFile(filepath.Join(encoder, "model.safetensors"), data, 0o600) != nil {
			t.Fatal(err)
		}
		on := openStages(t, filepath.Join(sdxlGoldens, run.Model), dir)[stage.KindEncoder]
		m, b, got := on.model("face"), on.book("face/image_encoder"), ""
		if m.problem != nil {
			got = m.problem.Message
		} else if b.problem != nil {
			got = b.problem.Message
		}
		if !strings.Contains(got, tell) {
			t.Errorf("%s: %q, want one that tells %q", file, got, tell)
		}
	}
}

// TestLoneNetworks: a folder with a network that is taken for a ControlNet is refused by its class, and one of another kind is no model.
func TestLoneNetworks(t *testing.T) {
	dir := t.TempDir()
	for name, class := range map[string]string{"union": "ControlNetUnionModel", "t2i": "T2IAdapter", "unet": "UNet2DConditionModel"} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o700), os.WriteFile(filepath.Join(dir, name, "config.json"), []byte(`{"_class_name": "`+class+`"}`), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s := openStages(t, dir)[stage.KindDenoiser]
	for name, class := range map[string]string{"union": "ControlNetUnionModel", "t2i": "T2IAdapter"} {
		if m := s.model(name); m == nil || m.problem == nil || !strings.Contains(m.problem.Message, class) {
			t.Errorf("%s: %+v, want it refused by its class", name, m)
		}
	}
	if s.model("unet") != nil {
		t.Error("a U-Net alone is a model")
	}
}

// What is wrong with a model that is a file does not tell where it is, nor where that was looked for which should be beside it.
func TestProblemsOfFilesTellNoFolder(t *testing.T) {
	dir := t.TempDir()
	for name, from := range map[string]string{
		"face": filepath.Join(sdxlGoldens, "ip-adapter/ip-adapter_tiny.safetensors"), "bare": filepath.Join(formatGoldens, "checkpoints/sd.safetensors"),
		"velocity": filepath.Join(formatGoldens, "checkpoints/sd2-v.safetensors"), "text": filepath.Join(formatGoldens, "checkpoints/sd-no-te.safetensors"),
	} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+".safetensors"), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	copyModel(t, filepath.Join(formatGoldens, "micro-sd2"), filepath.Join(dir, "velocity"))
	copyModel(t, filepath.Join(formatGoldens, "micro-sd15"), filepath.Join(dir, "text"))
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "velocity/scheduler")), os.RemoveAll(filepath.Join(dir, "text/text_encoder")),
		os.Remove(filepath.Join(dir, "velocity/model_index.json")), os.Remove(filepath.Join(dir, "text/model_index.json"))); err != nil {
		t.Fatal(err)
	}
	info, err := openStages(t, dir)[stage.KindDenoiser].Info(t.Context())
	if err != nil || len(info.Models) != 4 {
		t.Fatal(len(info.Models), err)
	}
	for _, m := range info.Models {
		if beside := map[string]string{"face": "image_encoder", "bare": "bare/unet/config.json", "velocity": "velocity/scheduler/scheduler_config.json", "text": "text/text_encoder"}[m.Name]; !strings.Contains(m.Problem, beside) || strings.Contains(m.Problem, dir) {
			t.Errorf("%s: %s, want %s without its folder", m.Name, m.Problem, beside)
		}
	}
}
