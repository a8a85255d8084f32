package modeldir

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
)

const formats = "../../../testdata/golden/formats"

// classes are those of checkpoints.
func classes() []string {
	return append(ClassesStableDiffusion(), "StableDiffusionXLPipeline", "StableDiffusionXLInpaintPipeline")
}

// beside copies a checkpoint to a folder of its own, with the JSON files and the tokenizers of a directory in the folder of its name, and
// weights of some networks.
func beside(t *testing.T, file, directory string, weights ...string) string {
	t.Helper()
	folder := t.TempDir()
	path := filepath.Join(folder, "model"+filepath.Ext(file))
	data, err := os.ReadFile(filepath.Join(formats, file))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if directory == "" {
		return path
	}
	from := filepath.Join(formats, directory)
	found, err := filepath.Glob(filepath.Join(from, "*", "*"))
	if err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	for _, f := range found {
		part := filepath.Base(filepath.Dir(f))
		if filepath.Ext(f) == ".safetensors" && !slices.Contains(weights, part) {
			continue
		}
		to := filepath.Join(folder, "model", part)
		if err := os.MkdirAll(to, 0o700); err != nil {
			t.Fatal(err)
		}
		if data, err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(f)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// network opens one of a model by its folder.
func network(d *Dir, folder string) (*Network, error) {
	switch folder {
	case UNetFolder:
		c, err := Config(d, folder, unet.ParseConfig)
		if err != nil {
			return nil, err
		}
		n, err := d.Denoiser(folder, c, Options{})
		return n.Files(), err
	case VAEFolder, "encoder":
		c, err := Config(d, VAEFolder, vae.ParseConfig)
		if err != nil {
			return nil, err
		}
		if folder == "encoder" {
			n, err := d.ImageEncoder(VAEFolder, c, Options{})
			return n.Files(), err
		}
		n, err := d.ImageDecoder(VAEFolder, c, Options{})
		return n.Files(), err
	}
	c, err := Config(d, folder, clip.ParseConfig)
	if err != nil {
		return nil, err
	}
	projection := 0
	if folder == TextEncoder2Folder {
		projection = c.Projection
	}
	n, err := d.TextEncoder(folder, c, projection, Options{})
	return n.Files(), err
}

// sameNetwork compares all parameters of a network of two models, by their values.
func sameNetwork(t *testing.T, got, want *Dir, folder string) {
	t.Helper()
	a, err := network(got, folder)
	if err != nil {
		t.Errorf("%s: %v", folder, err)
		return
	}
	defer a.Close()
	b, err := network(want, folder)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if len(a.Manifest().Params) != len(b.Manifest().Params) {
		t.Errorf("%s has %d parameters, want %d", folder, len(a.Manifest().Params), len(b.Manifest().Params))
		return
	}
	for i := range a.Manifest().Params {
		p, q := &a.Manifest().Params[i], &b.Manifest().Params[i]
		if x, y := paramBytes(t, p.Section, a), paramBytes(t, q.Section, b); !p.Shape.Equal(q.Shape) || !bytes.Equal(x, y) {
			t.Errorf("%s: %s %v %v is not %s %v %v", folder, p.Name, p.DType, p.Shape, q.Name, q.DType, q.Shape)
		}
	}
}

// Every checkpoint that has the networks of a directory has them to the bit, whatever its names and its file are.
func TestCheckpointsAreTheirDirectories(t *testing.T) {
	all := []string{UNetFolder, VAEFolder, "encoder", TextEncoderFolder}
	for _, test := range []struct {
		file, of, class string
		parts           []string
		with            []string // weights from the folder
	}{
		{"sd.safetensors", "micro-sd15", "", all, nil},
		{"sd-with-ema.safetensors", "micro-sd15", "", all, nil},
		{"sd-state-dict.ckpt", "micro-sd15", "", all, nil},
		{"sd-bare-legacy.ckpt", "micro-sd15", "", all, nil},
		{"sd-lightning.ckpt", "micro-sd15", "", all, nil},
		{"sd-no-vae.safetensors", "micro-sd15", "", all, []string{VAEFolder}},
		{"sd-no-te.safetensors", "micro-sd15", "", all, []string{TextEncoderFolder}},
		{"sd-vae-without-prefix.safetensors", "micro-sd15", "", all, nil},
		{"sd-unet-only.safetensors", "micro-sd15", "", all, []string{VAEFolder, TextEncoderFolder}},
		{"sd-unet-bare.safetensors", "micro-sd15", "", all, []string{VAEFolder, TextEncoderFolder}},
		{"sd-te-old-names.safetensors", "micro-sd15", "", all, nil},
		{"sd-position-ids-broken.safetensors", "micro-sd15", "", all, nil},
		{"sd-no-position-ids.safetensors", "micro-sd15", "", all, nil},
		{"sd-extras.safetensors", "micro-sd15", "", all, nil},
		{"sd-inpaint.safetensors", "micro-sd15", "StableDiffusionInpaintPipeline", all[1:], nil},
		{"sd2-v.safetensors", "micro-sd2", "", all, nil},
		{"sd2-base-modelspec.safetensors", "micro-sd2", "", all, nil},
		{"sd-unet-diffusers.safetensors", "micro-sd15", "", all, []string{VAEFolder, TextEncoderFolder}},
		{"xl.safetensors", "micro-sdxl", "", append(all, TextEncoder2Folder), nil},
		{"xl-te2-hf.safetensors", "micro-sdxl", "", append(all, TextEncoder2Folder), nil},
		{"xl-embed-extras.safetensors", "micro-sdxl", "", append(all, TextEncoder2Folder), nil},
		{"xl-v-pred.safetensors", "micro-sdxl", "", append(all, TextEncoder2Folder), nil},
		{"xl-lightning-names-only.safetensors", "micro-sdxl", "", append(all, TextEncoder2Folder), []string{VAEFolder, TextEncoderFolder, TextEncoder2Folder}},
	} {
		t.Run(test.file, func(t *testing.T) {
			want, err := Open(filepath.Join(formats, test.of), classes()...)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Open(beside(t, "checkpoints/"+test.file, test.of, test.with...), classes()...)
			if err != nil {
				t.Fatal(err)
			}
			class := want.Class()
			if test.class != "" {
				class = test.class
			}
			if got.Class() != class || got.Name() != "model" {
				t.Errorf("%s of class %s, want %s", got.Name(), got.Class(), class)
			}
			if strings.HasSuffix(test.file, "sd-unet-diffusers.safetensors") && len(got.surplus) > 0 {
				t.Errorf("warnings %q", got.surplus)
			}
			for _, part := range test.parts {
				sameNetwork(t, got, want, part)
			}
		})
	}
}

// Files that say how they predict are believed, before the directory's scheduler.
func TestCheckpointsPredictAsTheySay(t *testing.T) {
	for file, want := range map[string][]string{
		"sd2-v": {"v_prediction"}, "sd2-base-modelspec": {"epsilon"}, "xl": {"epsilon"}, "xl-v-pred": {"v_prediction"},
		"xl-v-modelspec": {"v_prediction"}, "xl-v-pred-ztsnr": {"v_prediction", `"rescale_betas_zero_snr":true`},
	} {
		of := "micro-sdxl"
		if strings.HasPrefix(file, "sd2") {
			of = "micro-sd2"
		}
		d, err := Open(beside(t, "checkpoints/"+file+".safetensors", of), classes()...)
		if err != nil {
			t.Fatal(err)
		}
		_, data, err := d.Scheduler()
		for _, text := range want {
			if err != nil || !strings.Contains(string(data), text) {
				t.Errorf("%s: scheduler %s, %v, want %s in it", file, data, err, text)
			}
		}
	}
}

// What is no checkpoint that can be drawn with is refused by what it is.
func TestCheckpointsRefused(t *testing.T) {
	for file, why := range map[string]string{
		"sd-only-ema-names.safetensors": "moving average", "sd-fp8-scaled.safetensors": "scale_weight",
		"sd-no-vae.safetensors": "first_stage_model", "sd-no-te.safetensors": "cond_stage_model",
		"sd-one-missing.safetensors": "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight",
		"sd-depth-5ch.safetensors":   "5 input channels", "sd-ip2p.safetensors": "instruct-pix2pix",
		"xl-edm.safetensors": "edm_mean", "xl-refiner.safetensors": "refiner", "other-flux.safetensors": "FLUX",
		"other-sd3.safetensors": "Stable Diffusion 3", "other-cascade.safetensors": "Cascade", "other-svd.safetensors": "time_stack",
		"other-animatediff.safetensors": "AnimateDiff", "other-clip-only.safetensors": "text encoder alone",
		"vae-decoder-only.safetensors": "half of an autoencoder", "vae-bare.safetensors": "got " + ClassVAE,
		"not-a-state-dict.ckpt": "a dict without tensors",
	} {
		_, err := Open(beside(t, "checkpoints/"+file, "micro-sd15"), classes()...)
		if err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "model"+filepath.Ext(file)) {
			t.Errorf("%s: %v, want an error with the file and %q", file, err, why)
		}
	}
	_, err := Open(beside(t, "checkpoints/sd.safetensors", ""), classes()...)
	var of *Error
	if !errors.As(err, &of) || !strings.Contains(err.Error(), filepath.Join("model", UNetFolder, "config.json")) {
		t.Errorf("without configs: %v, want an error that says where they are looked for", err)
	}
	d, err := Open(beside(t, "checkpoints/sd-wrong-shape.safetensors", "micro-sd15", VAEFolder, TextEncoderFolder), classes()...)
	if err == nil {
		_, err = network(d, UNetFolder)
	}
	if err == nil || !strings.Contains(err.Error(), "model.diffusion_model.time_embed.0.bias") {
		t.Errorf("a wrong shape: %v", err)
	}
}

// The autoencoder of a file beside a checkpoint is taken before its own.
func TestAutoencoderBesideCheckpoint(t *testing.T) {
	want, err := Open(filepath.Join(formats, "micro-sd15"), classes()...)
	if err != nil {
		t.Fatal(err)
	}
	for file, ext := range map[string]string{
		"vae-bare.safetensors": ".vae.safetensors", "vae-prefixed.safetensors": ".vae.safetensors", "vae-training.vae.pt": ".vae.pt",
		"vae-linear-attention.safetensors": ".vae.safetensors", "vae-diffusers.safetensors": ".vae.safetensors", "vae-diffusers-old.safetensors": ".vae.safetensors",
	} {
		path := beside(t, "checkpoints/sd-no-vae.safetensors", "micro-sd15")
		before, _ := Stamp(path, []string{VAEFolder}, nil)
		data, err := os.ReadFile(filepath.Join(formats, "checkpoints", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(strings.TrimSuffix(path, filepath.Ext(path))+ext, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if after, whole := Stamp(path, []string{VAEFolder}, nil); after == before || !whole {
			t.Errorf("%s: the stamp %q is the same as without it, or not whole", file, after)
		}
		got, err := Open(path, classes()...)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		sameNetwork(t, got, want, VAEFolder)
		sameNetwork(t, got, want, "encoder")
	}
}

// paramBytes are the values of a parameter.
func paramBytes(t *testing.T, section func(device.Source) (*io.SectionReader, error), n *Network) []byte {
	t.Helper()
	s, err := section(n.Source())
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
