package planner

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/families"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

const goldens = repo + "/testdata/golden/"

// face makes a model of the IP-Adapter for tiny-sdxl, in a folder of its own.
func face(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "face")
	data, err := os.ReadFile(goldens + "control/ip-adapter_tiny_xl.safetensors")
	if err := errors.Join(err, os.Mkdir(dir, 0o700), os.CopyFS(filepath.Join(dir, "image_encoder"), os.DirFS(goldens+"sdxl/ip-adapter/image_encoder")),
		os.WriteFile(filepath.Join(dir, "model_index.json"), []byte(`{"_class_name": "IPAdapter"}`), 0o600),
		os.WriteFile(filepath.Join(dir, "diffusion_pytorch_model.safetensors"), data, 0o600)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// estimate plans a request on a device with a budget, 0 for none, over models in some folders.
func estimate(t *testing.T, budget int64, req EstimateRequest, dirs ...string) (Estimate, stageengine.Options, error) {
	t.Helper()
	library, err := stageengine.OpenLibrary(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	d, err := cpu.New(cpu.Options{MemoryCapBytes: budget, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // it always returns nil
	o := stageengine.Options{Library: library, Device: d, Families: families.All()}
	e, err := NewEstimate(t.Context(), o, req)
	return e, o, err
}

// TestEstimateWithAdapters: a request with adapters is planned from headers alone as with their weights, each adapter is a member, and a
// device allocates what is planned.
func TestEstimateWithAdapters(t *testing.T) {
	dirs := []string{goldens + "sdxl/tiny-sdxl", goldens + "sdxl/control-xl-a", face(t), goldens + "sdxl/lora/xl-kohya.safetensors"}
	var headers []string
	for _, dir := range dirs {
		headers = append(headers, bare(t, dir, true))
	}
	req := EstimateRequest{Model: "tiny-sdxl", WidthPx: 64, HeightPx: 48, Guided: true}
	plain, _, err := estimate(t, 0, req, dirs...)
	if err != nil {
		t.Fatal(err)
	}
	req.Options = map[string]string{"controlnets": "control-xl-a:0.7", "ip_adapter": "face:0.5", "loras": "xl-kohya:0.8"}
	want, o, err := estimate(t, 0, req, dirs...)
	if err != nil {
		t.Fatal(err)
	}
	var turns []string
	for _, s := range want.Stages {
		var members []string
		for _, w := range s.Footprint.Weights {
			members = append(members, w.Component)
		}
		turns = append(turns, s.Turn+" "+strings.Join(members, "+"))
	}
	if diff := cmp.Diff([]string{
		"encode tiny-sdxl/text_encoder+tiny-sdxl/text_encoder_2+xl-kohya/lora.text_encoder+xl-kohya/lora.text_encoder_2", "encode_image_prompt face/image_encoder",
		"denoise tiny-sdxl/unet+control-xl-a/controlnet+face/ip_adapter+xl-kohya/lora.unet", "decode tiny-sdxl/vae.decoder",
	}, turns); diff != "" {
		t.Error(diff)
	}
	if a, b := want.Stages[2].Footprint, plain.Stages[1].Footprint; a.WeightsBytes() <= b.WeightsBytes() || a.ScratchBytes <= b.ScratchBytes {
		t.Errorf("denoising takes %+v with adapters, %+v without", a, b)
	}
	got, _, err := estimate(t, 0, req, headers...)
	if err != nil || got.Present || !got.Runs {
		t.Errorf("of headers: present %v, runs %v, %v", got.Present, got.Runs, err)
	}
	same := cmp.Options{cmpopts.IgnoreUnexported(StageEstimate{}), cmpopts.IgnoreFields(Estimate{}, "Present"), cmpopts.IgnoreFields(NetworkEstimate{}, "Present", "Warnings")} // a scheduler is not copied
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Error(diff)
	}
	allocates(t, o, want, req)
	budget := want.Stages[2].LeastWeights + want.Stages[2].LeastScratch
	within, _, err := estimate(t, budget, req, headers...)
	if f := within.Stages[2].Footprint; err != nil || f.WeightsBytes()+f.ScratchBytes > budget || within.Stages[2].StreamedBytes == 0 {
		t.Errorf("within %d bytes: %+v, %v", budget, f, err)
	}
}

// allocates compares the weights of an estimate with what a device has when they are loaded.
func allocates(t *testing.T, o stageengine.Options, e Estimate, req EstimateRequest) {
	t.Helper()
	for _, s := range e.Stages {
		d, err := cpu.New(cpu.Options{MemoryCapBytes: s.Footprint.WeightsBytes(), Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		o.Device = d
		by := stageengine.New(s.Kind, o)
		for _, w := range s.Footprint.Weights {
			if err := by.Load(t.Context(), stage.LoadRequest{Component: w.Component}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if m := d.Memory(); m.UsedBytes != s.Footprint.WeightsBytes() || m.PeakBytes != m.UsedBytes {
			t.Errorf("%s of %s: memory %+v, planned %+v", s.Turn, req.Model, m, s.Footprint)
		}
		for _, w := range s.Footprint.Weights {
			if _, err := by.Evict(t.Context(), stage.EvictRequest{Component: w.Component}); err != nil {
				t.Error(err)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestAdapterRefusals: what an option cannot name is told before anything is planned.
func TestAdapterRefusals(t *testing.T) {
	dirs := []string{goldens + "sdxl/tiny-sdxl", goldens + "sdxl/control-sd-a", goldens + "sdxl/control-xl-a"}
	for name, c := range map[string]struct {
		options map[string]string
		told    []string
	}{
		"none":             {map[string]string{"controlnets": "canny"}, []string{"controlnets", `"canny"`, "control-xl-a"}},
		"another kind":     {map[string]string{"ip_adapter": "control-xl-a"}, []string{"ip_adapter", "it is a controlnet"}},
		"the model":        {map[string]string{"controlnets": "tiny-sdxl"}, []string{"it is a model to draw with"}},
		"another base":     {map[string]string{"controlnets": "control-sd-a"}, []string{"control-sd-a"}},
		"too many":         {map[string]string{"controlnets": "control-xl-a,a,b,c"}, []string{"controlnets"}},
		"no number":        {map[string]string{"controlnets": "control-xl-a:much"}, []string{"controlnets"}},
		"no option":        {map[string]string{"sharpness": "1"}, []string{`"sharpness"`, "controlnets"}},
		"with a flag":      {map[string]string{"width": "64"}, []string{`"width"`}},
		"another type":     {map[string]string{"prompt_tokens": "many"}, []string{"prompt_tokens", "type int"}},
		"out of its range": {map[string]string{"prompt_tokens": "0"}, []string{"prompt_tokens"}},
	} {
		_, _, err := estimate(t, 0, EstimateRequest{Model: "tiny-sdxl", Options: c.options}, dirs...)
		if stage.ReasonOf(err) != stage.InvalidField {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, told := range c.told {
			if !strings.Contains(err.Error(), told) {
				t.Errorf("%s: %v does not tell %q", name, err, told)
			}
		}
	}
}
