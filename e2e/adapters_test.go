//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// adapterRun is a run of a golden's index; options, inputs and flags are what the request says of adapters.
type adapterRun struct {
	ID, Model, Sampler, Prompt, PNG string
	NegativePrompt                  string `json:"negative_prompt"`
	Steps                           int32
	GuidanceScale                   float32 `json:"guidance_scale"`
	Width, Height                   int32
	Seed                            uint64

	dir     string
	options map[string]*triptychv1alpha1.OptionValue
	inputs  map[string]string // files
	flags   []string
}

// goldenRun is a run of the goldens in a folder.
func goldenRun(t *testing.T, golden, id string) adapterRun {
	t.Helper()
	dir := filepath.Join("..", "testdata", "golden", golden)
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Runs []adapterRun }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(index.Runs, func(r adapterRun) bool { return r.ID == id })
	if i < 0 {
		t.Fatalf("%s has no run %s", golden, id)
	}
	index.Runs[i].dir = dir
	return index.Runs[i]
}

// with is the run with what it says of adapters; options are texts, or true and false.
func (r adapterRun) with(options, inputs map[string]string, flags ...string) adapterRun {
	r.options = map[string]*triptychv1alpha1.OptionValue{}
	for name, text := range options {
		r.options[name] = &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Text{Text: text}}
		if truth, err := strconv.ParseBool(text); err == nil {
			r.options[name] = &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Bool{Bool: truth}}
		}
	}
	r.inputs, r.flags = inputs, flags
	return r
}

// spec is the request by the API.
func (r adapterRun) spec(t *testing.T) *triptychv1alpha1.GenerationSpec {
	t.Helper()
	files := map[string][]byte{}
	for name, file := range r.inputs {
		data, err := os.ReadFile(filepath.Join(pictureGoldens, "inputs", file))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	return &triptychv1alpha1.GenerationSpec{
		Model: r.Model, Prompt: r.Prompt, NegativePrompt: r.NegativePrompt, Sampler: r.Sampler, Steps: &r.Steps, GuidanceScale: &r.GuidanceScale,
		WidthPx: &r.Width, HeightPx: &r.Height, Seed: &r.Seed, Options: r.options, Inputs: files,
	}
}

// args is the request by the command.
func (r adapterRun) args(out string) []string {
	return append([]string{
		"generate", r.Prompt, "-o", out, "--model", r.Model, "--negative-prompt", r.NegativePrompt, "--sampler", r.Sampler, "--steps", fmt.Sprint(r.Steps),
		"--guidance-scale", fmt.Sprint(r.GuidanceScale), "--width", fmt.Sprint(r.Width), "--height", fmt.Sprint(r.Height), "--seed", fmt.Sprint(r.Seed),
	}, r.flags...)
}

// input is a picture of the goldens as the command is given it.
func input(name string) string { return filepath.Join("testdata", "golden", "sdxl", "inputs", name) }

// adapterModels makes a folder with two models that draw, a refiner, ControlNets, IP-Adapters, a LoRA and embeddings.
func adapterModels(t *testing.T) string {
	t.Helper()
	dir, golden := t.TempDir(), filepath.Join("..", "testdata", "golden")
	for _, name := range []string{"tiny-sd15", "tiny-sdxl", "control-sd-a", "control-sd-b", "control-xl-a"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(golden, "sdxl", name))); err != nil {
			t.Fatal(err)
		}
	}
	sdxl := os.DirFS(filepath.Join(golden, "sdxl", "tiny-sdxl")) // of which a refiner has all but the U-Net
	if err := os.CopyFS(filepath.Join(dir, "tiny-refiner"), sdxl); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"tiny-refiner/model_index.json": "xl-more/tiny-refiner/model_index.json", "tiny-refiner/unet/config.json": "xl-more/tiny-refiner/unet/config.json",
		"tiny-refiner/unet/diffusion_pytorch_model.safetensors": "xl-more/tiny-refiner/unet/diffusion_pytorch_model.safetensors",
		"embeddings/zoo-style.pt":                               "sdxl/embeddings/zoo-style.pt", "embeddings/toy.safetensors": "sdxl/embeddings/toy.safetensors",
		"style.safetensors": "sdxl/lora/sd-kohya.safetensors",
	}
	for name, file := range map[string]string{"face": "sdxl/ip-adapter/ip-adapter_tiny.safetensors", "face-xl": "control/ip-adapter_tiny_xl.safetensors"} {
		files[name+"/diffusion_pytorch_model.safetensors"] = file
		if err := errors.Join(
			os.CopyFS(filepath.Join(dir, name, "image_encoder"), os.DirFS(filepath.Join(golden, "sdxl", "ip-adapter", "image_encoder"))),
			os.WriteFile(filepath.Join(dir, name, "model_index.json"), []byte(`{"_class_name": "IPAdapter"}`), 0o600),
		); err != nil {
			t.Fatal(err)
		}
	}
	for to, from := range files {
		copyFile(t, filepath.Join(golden, from), filepath.Join(dir, to))
	}
	return dir
}

// controlled is a run under two ControlNets, each for a part of the steps.
func controlled(t *testing.T) adapterRun {
	t.Helper()
	return goldenRun(t, "sdxl", "sd-control-multi").with(
		map[string]string{"controlnets": "control-sd-a:0.9:0:0.6,control-sd-b:0.4:0.3:1"},
		map[string]string{"control_image": "edges-64x48.png", "control_image_2": "scribble-64x48.png"},
		"--controlnet", "control-sd-a:0.9:0:0.6", "--controlnet", "control-sd-b:0.4:0.3:1", "--control-image", input("edges-64x48.png"), "--control-image", input("scribble-64x48.png"))
}

// TestAdapters: under ControlNets, an IP-Adapter, with an embedding and a refiner, three services draw what diffusers draws, by the API and by
// the command.
func TestAdapters(t *testing.T) {
	models := adapterModels(t)
	s := up(t, "--models", models)
	for _, r := range []adapterRun{
		controlled(t),
		goldenRun(t, "sdxl", "xl-control-1").with(map[string]string{"controlnets": "control-xl-a:0.5:0.25:0.75"}, map[string]string{"control_image": "scribble-64x48.png"},
			"--controlnet", "control-xl-a:0.5:0.25:0.75", "--control-image", input("scribble-64x48.png")),
		goldenRun(t, "sdxl", "sd-ip-1").with(map[string]string{"ip_adapter": "face:0.7"}, map[string]string{"image_prompt": "photo-90x70.png"},
			"--ip-adapter", "face:0.7", "--image-prompt", input("photo-90x70.png")),
		goldenRun(t, "control", "ip-xl-control").with(map[string]string{"controlnets": "control-xl-a:0.7", "ip_adapter": "face-xl:0.8"},
			map[string]string{"control_image": "edges-64x48.png", "image_prompt": "photo-90x70.png"},
			"--controlnet", "control-xl-a:0.7", "--control-image", input("edges-64x48.png"), "--ip-adapter", "face-xl:0.8", "--image-prompt", input("photo-90x70.png")),
		goldenRun(t, "sdxl", "sd-embedding").with(map[string]string{"prompt_syntax": "weights", "restore_mean": "false"}, nil,
			"--option", "prompt_syntax=weights", "--option", "restore_mean=false"),
		goldenRun(t, "xl-more", "second-euler").with(map[string]string{"refiner": "tiny-refiner:0.6"}, nil, "--option", "refiner=tiny-refiner:0.6"),
		goldenRun(t, "xl-more", "second-dpmpp").with(map[string]string{"refiner": "tiny-refiner:0.4"}, nil, "--option", "refiner=tiny-refiner:0.4"),
	} {
		t.Run(r.ID, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out.png")
			events, err := s.generate(t.Context(), r.spec(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(out, images(t, events)[0], 0o600); err != nil {
				t.Fatal(err)
			}
			compare(t, filepath.Join(r.dir, r.PNG), out)
			if got := runCommand(t, append(r.args(out), "--server", s.addresses["orchestrator"])...); got.code != 0 {
				t.Fatalf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
			}
			file, err := os.ReadFile(out)
			if err != nil || !bytes.Equal(file, images(t, events)[0]) {
				t.Errorf("the command makes another file (%v)", err)
			}
		})
	}
	t.Run("alone", func(t *testing.T) { // on a stack of its own
		out := filepath.Join(t.TempDir(), "out.png")
		r := controlled(t)
		if got := runCommand(t, append(r.args(out), "--models", models)...); got.code != 0 {
			t.Fatalf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
		}
		compare(t, filepath.Join(r.dir, r.PNG), out)
		r.flags = append(r.flags, "--ip-adapter", "nobody", "--image-prompt", input("photo-90x70.png"))
		if got := runCommand(t, append(r.args(out), "--models", models)...); got.code != 2 || !strings.Contains(got.stderr, "one of face, face-xl") {
			t.Errorf("an adapter that is not there: exit code %d: %s", got.code, got.stderr)
		}
	})
}

// TestAdaptersInBudget: in a budget that the denoising of a request with ControlNets needs to the byte, each component is loaded once for it, what
// is in the way is evicted; a larger picture without them evicts them beside the U-Net, and they are loaded again for the next. In a byte less, with
// nothing streamed, the request is refused before anything is loaded.
func TestAdaptersInBudget(t *testing.T) {
	models, r := adapterModels(t), controlled(t)
	s := up(t, "--models", models)
	events, err := s.generate(t.Context(), r.spec(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	want, budget := images(t, events)[0], int64(0)
	for _, u := range events[len(events)-1].GetCompleted().GetStages() {
		budget = max(budget, u.GetWeightsBytes()+u.GetScratchBytes())
	}
	s.stop(t)
	p := runPlan(t, r.Model, "--models", models, "--option", "controlnets="+r.options["controlnets"].GetText(), "--width", fmt.Sprint(r.Width), "--height", fmt.Sprint(r.Height))
	if wantUsage(t, p, events); p.LeastBudgetBytes != budget {
		t.Errorf("the plan tells a smallest budget of %d bytes, want %d", p.LeastBudgetBytes, budget)
	}

	nets := []string{"control-sd-a/controlnet", "control-sd-b/controlnet"}
	large := goldenRun(t, "sdxl", "sd-control-multi")
	for needs, most := int64(0), budget-100_000; needs < most; large.Height += 4 { // the two have 180 kB each
		p := runPlan(t, filepath.Join(models, large.Model), "--width", fmt.Sprint(large.Width), "--height", fmt.Sprint(large.Height+4)).Stages[1]
		needs = p.WeightsBytes + p.ScratchBytes
		if needs > budget {
			t.Fatalf("a picture of %d pixels' height needs %d bytes, of a budget of %d", large.Height+4, needs, budget)
		}
	}

	s = up(t, "--models", models, "--memory-budget", strconv.FormatInt(budget, 10), "--resident-bytes", "all")
	watch, err := triptychv1alpha1.NewResidencyServiceClient(s.conn).WatchResidency(t.Context(), &triptychv1alpha1.WatchResidencyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	draw := func(r adapterRun) (image []byte, loads, evictions []string, most int64) {
		t.Helper()
		events, err := s.generate(t.Context(), r.spec(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		for {
			news, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			d := news.GetDecision().GetEvent()
			most = max(most, d.GetUsedBytes())
			switch {
			case d.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_LOADED:
				loads = append(loads, d.GetComponent())
			case d.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_EVICT:
				evictions = append(evictions, d.GetComponent())
			case d.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_WORK_DONE && d.GetStage() == "decoder":
				slices.Sort(loads)
				slices.Sort(evictions)
				return images(t, events)[0], loads, evictions, most
			}
		}
	}
	first, loads, evictions, most := draw(r)
	if all := []string{nets[0], nets[1], "tiny-sd15/text_encoder", "tiny-sd15/unet", "tiny-sd15/vae.decoder"}; !slices.Equal(loads, all) ||
		!slices.Equal(evictions, all[2:3]) || most != budget || !bytes.Equal(first, want) {
		t.Errorf("loaded %q, evicted %q, used %d bytes at most of %d; the picture is the same: %v", loads, evictions, most, budget, bytes.Equal(first, want))
	}
	_, loads, evictions, most = draw(large)
	t.Logf("without ControlNets, %dx%d pixels: loaded %q, evicted %q, used %d of %d", large.Width, large.Height, loads, evictions, most, budget)
	if gone := slices.DeleteFunc(slices.Clone(evictions), func(name string) bool { return !slices.Contains(nets, name) }); !slices.Equal(gone, nets) ||
		slices.Contains(loads, "tiny-sd15/unet") || most > budget {
		t.Errorf("without ControlNets: loaded %q, evicted %q, used %d bytes at most of %d", loads, evictions, most, budget)
	}
	again, loads, _, most := draw(r)
	if back := slices.DeleteFunc(slices.Clone(loads), func(name string) bool { return !slices.Contains(nets, name) }); !slices.Equal(back, nets) ||
		most != budget || !bytes.Equal(again, want) {
		t.Errorf("again: loaded %q, used %d bytes at most of %d; the picture is the same: %v", loads, most, budget, bytes.Equal(again, want))
	}
	s.stop(t)

	s = up(t, "--models", models, "--memory-budget", strconv.FormatInt(budget-1, 10), "--resident-bytes", "all")
	events, err = s.generate(t.Context(), r.spec(t), nil)
	info := errorInfo(err)
	if info.GetReason() != "MODEL_DOES_NOT_FIT" || info.GetMetadata()["needed_bytes"] != fmt.Sprint(budget) || len(events) > 0 {
		t.Errorf("in a byte less: %v, %v after %d events", err, info.GetMetadata(), len(events))
	}
}
