package stageengine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

// The goldens of pictures that are drawn from others: of sdxl whole runs with some samplers, of pictures the latents of all.
const (
	sdxlGoldens    = repo + "/testdata/golden/sdxl"
	pictureGoldens = repo + "/testdata/golden/pictures"
	pictureModel   = "tiny-sd15"
)

// pictureRun is a generation from a picture.
type pictureRun struct {
	goldenRun
	ID, Model, Kind string
	Strength        float64
	Image, Mask     string
}

func pictureRuns(t *testing.T, dir string, want int) (out []pictureRun) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Runs []pictureRun }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	for _, r := range index.Runs {
		if r.Model == pictureModel && (r.Kind == "img2img" || r.Kind == "inpaint") {
			out = append(out, r)
		}
	}
	if len(out) != want {
		t.Fatalf("%d runs, want %d", len(out), want)
	}
	return out
}

// pictureStages are the stages of the model, with all of its components.
func pictureStages(t *testing.T) (encoder, denoiser, decoder *Stage) {
	t.Helper()
	encoder, denoiser, decoder = open(t, filepath.Join(sdxlGoldens, pictureModel))
	for _, s := range []*Stage{encoder, denoiser, decoder} {
		for _, b := range s.all() {
			if err := s.Load(t.Context(), stage.LoadRequest{Component: b.component.Name}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	return encoder, denoiser, decoder
}

// encodeImage gives what a picture, and a mask if there is one, are to a denoiser.
func encodeImage(t *testing.T, s *Stage, model string, o stage.Options, image, mask []byte) (stage.Values, error) {
	t.Helper()
	file := func(name string, data []byte) stage.Value {
		return stage.Value{Name: name, File: &stage.File{Media: "image/png", Data: data}}
	}
	values := stage.Values{file("init_image", image)}
	if mask != nil {
		values = append(values, file("mask", mask))
	}
	out, err := s.Work(t.Context(), stage.WorkRequest{Turn: "encode_image", Components: []string{model + "/vae.encoder"}, Options: o, Values: values}, stage.Observer{})
	return out.Values, err
}

func readPicture(t *testing.T, name string) []byte {
	t.Helper()
	if name == "" {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(sdxlGoldens, "inputs", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// draw makes the latents of a run, and checks that going on from any step gives the same to the bit.
func (r pictureRun) draw(t *testing.T, encoder, denoiser, decoder *Stage) tensor.Tensor {
	t.Helper()
	prompts := []string{r.Prompt}
	if r.GuidanceScale > 1 {
		prompts = []string{r.NegativePrompt, r.Prompt}
	}
	states, err := encode(t.Context(), encoder, r.Model, prompts...)
	if err != nil {
		t.Fatal(err)
	}
	f := factorOf(decoder, r.Model)
	req := denoising{
		Model: r.Model, States: states, H: r.Height / f, W: r.Width / f, Steps: r.Steps, Guidance: r.GuidanceScale, Sampler: r.Sampler, Seed: r.Seed,
		Strength: r.Strength, Checkpoints: 1,
	}
	if req.More, err = encodeImage(t, decoder, r.Model, sides(decoder, r.Model, req.H, req.W), readPicture(t, r.Image), readPicture(t, r.Mask)); err != nil {
		t.Fatal(err)
	}
	var checkpoints []stage.Checkpoint
	ready, done := 0, 0
	latents, err := denoise(t.Context(), denoiser, req, stage.Observer{
		Ready: func(steps int) { ready = steps }, Progress: func(n, _ int) { done = n },
		Checkpoint: func(c stage.Checkpoint) { checkpoints = append(checkpoints, c) },
	})
	if err != nil {
		t.Fatalf("%s: %v", r.ID, err)
	}
	if ready == 0 || ready != done || len(checkpoints) != ready-1 {
		t.Errorf("%s: %d steps of %d, %d checkpoints", r.ID, done, ready, len(checkpoints))
	}
	for _, c := range checkpoints {
		req.Resume = &c
		if again, err := denoise(t.Context(), denoiser, req, stage.Observer{}); err != nil || !bytes.Equal(again.Data, latents.Data) {
			t.Errorf("%s: other latents from step %d on, %v", r.ID, c.Step, err)
		}
	}
	return latents
}

// TestGoldenPictures draws from pictures and under masks what StableDiffusionImg2ImgPipeline and StableDiffusionInpaintPipeline
// draw.
func TestGoldenPictures(t *testing.T) {
	encoder, denoiser, decoder := pictureStages(t)
	var table []string
	for _, r := range pictureRuns(t, sdxlGoldens, 11) {
		latents := r.draw(t, encoder, denoiser, decoder)
		img, err := decode(t.Context(), decoder, r.Model, latents, "png", "")
		if err != nil {
			t.Fatal(err)
		}
		table = append(table, fmt.Sprintf("%-30s %v", r.ID, compareRun(t, sdxlGoldens, r.goldenRun, latents, img)))
	}
	t.Logf("run, latents' largest error (allowed %g), PNG values off by one and by more:\n%s", latentTolerance, strings.Join(table, "\n"))
}

// TestPicturesOfEverySampler: likewise with every sampler, and of pictures of another size.
func TestPicturesOfEverySampler(t *testing.T) {
	encoder, denoiser, decoder := pictureStages(t)
	file, err := weights.OpenFile(filepath.Join(pictureGoldens, "latents.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var table []string
	for _, r := range pictureRuns(t, pictureGoldens, 32) {
		got, want := floats(t, r.draw(t, encoder, denoiser, decoder)), tensorOf(t, file, r.ID)
		relative := largestError(t, want, got)
		table = append(table, fmt.Sprintf("%-30s %8.1e", r.ID, relative))
		if !(relative <= latentTolerance) {
			t.Errorf("%s: latents are off by %.2g of the largest", r.ID, relative)
		}
	}
	t.Logf("run, latents' largest error (allowed %g):\n%s", latentTolerance, strings.Join(table, "\n"))
}

// A model draws although its autoencoder has no encoder that can be opened: that component alone has a problem.
func TestWithoutPictureEncoder(t *testing.T) {
	dir := copied(t)
	tensors := readTensors(t, filepath.Join(dir, vaeFile))
	delete(tensors, "encoder.conv_in.weight")
	writeTensors(t, filepath.Join(dir, vaeFile), tensors)
	_, _, decoder := open(t, dir)
	info, err := decoder.Info(t.Context())
	if err != nil || len(info.Components) != 2 || info.Components[0].Problem != "" || !strings.Contains(info.Components[1].Problem, "encoder.conv_in.weight") || info.Models[0].Problem != "" {
		t.Fatalf("%+v, %v", info, err)
	}
	if err := decoder.Load(t.Context(), stage.LoadRequest{Component: staleModel + "/vae.decoder"}, nil); err != nil {
		t.Error(err)
	}
	if err := decoder.Load(t.Context(), stage.LoadRequest{Component: staleModel + "/vae.encoder"}, nil); stage.ReasonOf(err) != stage.ModelInvalid {
		t.Errorf("%v, want ModelInvalid", err)
	}
	if all, err := Identities(t.Context(), decoder.Options, staleModel); err != nil || len(all) != 3 || all[staleModel+"/vae.decoder"] == "" {
		t.Errorf("identities %v, %v", all, err)
	}
}

// A load opens what its component needs: the weights of others may be anything.
func TestLoadOpensItsOwn(t *testing.T) {
	for kind, own := range weightFiles {
		dir := copied(t)
		library, err := OpenLibrary(dir)
		if err != nil {
			t.Fatal(err)
		}
		device, err := cpu.New(cpu.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s := newStage(kind, Options{Library: library, Device: device})
		for _, other := range weightFiles {
			if other != own {
				if err := os.WriteFile(filepath.Join(dir, other), []byte("nothing"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := s.Load(t.Context(), stage.LoadRequest{Component: partOf(s, staleModel)}, nil); err != nil {
			t.Errorf("%v: %v", kind, err)
		}
		if _, err := s.Evict(t.Context(), stage.EvictRequest{Component: partOf(s, staleModel)}); err != nil {
			t.Error(err)
		}
	}
}

// What cannot be drawn from a picture is refused by name, before the work.
func TestPicturesRefused(t *testing.T) {
	encoder, denoiser, decoder := pictureStages(t)
	r := pictureRuns(t, sdxlGoldens, 11)[7] // with a mask
	states, err := encode(t.Context(), encoder, r.Model, r.NegativePrompt, r.Prompt)
	if err != nil {
		t.Fatal(err)
	}
	values, err := encodeImage(t, decoder, r.Model, sides(decoder, r.Model, 12, 16), readPicture(t, r.Image), readPicture(t, r.Mask))
	if err != nil {
		t.Fatal(err)
	}
	mask, _ := values.Get("mask_latents")
	moments, _ := values.Get("moments")
	good := denoising{Model: r.Model, States: states, H: 12, W: 16, Steps: 4, Guidance: 2, Sampler: "ddim", Strength: 0.5}
	for name, c := range map[string]struct {
		change func(*denoising)
		reason stage.Reason
		field  string
	}{
		"less than a step": {func(d *denoising) { d.Strength, d.More = 0.24, values }, stage.InvalidField, "strength"},
		"too strong":       {func(d *denoising) { d.Strength, d.More = 1.5, values }, stage.InvalidField, "strength"},
		"a mask alone":     {func(d *denoising) { d.More = stage.Values{mask} }, stage.InvalidField, "mask_latents"},
		"another size":     {func(d *denoising) { d.W, d.More = 12, stage.Values{moments} }, stage.TensorInvalid, "moments"},
		"a mask of another": {func(d *denoising) {
			d.More = stage.Values{moments, waves("mask_latents", 2, 1, 1, 12, 12)}
		}, stage.TensorInvalid, "mask_latents"},
	} {
		req := good
		c.change(&req)
		_, err := denoise(t.Context(), denoiser, req, stage.Observer{Ready: func(int) { t.Errorf("%s: work began", name) }})
		var told *stage.Error
		if !errors.As(err, &told) || told.Reason != c.reason || told.Metadata["field"] != c.field {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, image := range map[string][]byte{"no image": []byte("GIF89a"), "a part of one": readPicture(t, r.Image)[:100]} {
		if _, err := encodeImage(t, decoder, r.Model, sides(decoder, r.Model, 12, 16), image, nil); stage.ReasonOf(err) != stage.InvalidField || strings.Contains(err.Error(), "imaging") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A U-Net that sees a picture and no mask, as that of InstructPix2Pix, is refused by the number of its channels.
func TestEightChannels(t *testing.T) {
	dir := edited(t, "tiny-sd15", []edit{{File: "unet/config.json", Key: "in_channels", Value: []byte("8")}})
	_, denoiser, _ := open(t, dir)
	info, err := denoiser.Info(t.Context())
	if err != nil || len(info.Models) != 1 || !strings.Contains(info.Models[0].Problem, "in_channels 4, the autoencoder's latent_channels, or 9 for inpainting") || len(info.Components) != 0 {
		t.Errorf("%+v, %v", info, err)
	}
	if err := denoiser.Load(t.Context(), stage.LoadRequest{Component: "tiny-sd15/unet"}, nil); stage.ReasonOf(err) != stage.ModelInvalid {
		t.Errorf("%v, want ModelInvalid", err)
	}
}
