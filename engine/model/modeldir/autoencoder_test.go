package modeldir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// vaeFiles are the files of the goldens that have micro-sd15's autoencoder, each in another layout.
func vaeFiles() []string {
	return []string{
		"vae-bare.safetensors", "vae-prefixed.safetensors", "vae-training.vae.pt", "vae-linear-attention.safetensors", "vae-diffusers.safetensors", "vae-diffusers-old.safetensors",
		"sd.safetensors", // a checkpoint, of which that is taken
	}
}

// bareDirectory copies a model without the weights of its autoencoder.
func bareDirectory(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model")
	err := os.CopyFS(path, os.DirFS(filepath.Join(formats, "micro-sd15")))
	if err == nil {
		err = os.Remove(filepath.Join(path, VAEFolder, "diffusion_pytorch_model.safetensors"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A file's autoencoder takes the place of that of a directory and of a checkpoint, before one beside it.
func TestReplacedAutoencoder(t *testing.T) {
	want, err := Open(filepath.Join(formats, "micro-sd15"), classes()...)
	if err != nil {
		t.Fatal(err)
	}
	checkpoint := beside(t, "checkpoints/sd-no-vae.safetensors", "micro-sd15")
	if err := os.WriteFile(strings.TrimSuffix(checkpoint, ".safetensors")+".vae.safetensors", []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range vaeFiles() {
		for _, path := range []string{bareDirectory(t), checkpoint} {
			got, err := OpenWith(path, filepath.Join(formats, "checkpoints", file), classes()...)
			if err != nil {
				t.Errorf("%s in %s: %v", file, filepath.Base(path), err)
				continue
			}
			for _, part := range []string{VAEFolder, "encoder", UNetFolder, TextEncoderFolder} {
				sameNetwork(t, got, want, part)
			}
			a, err := got.Read(VAEFolder, configFile)
			if err != nil || !strings.Contains(string(a), "scaling_factor") {
				t.Errorf("%s: config %s, %v", file, a, err)
			}
		}
	}
}

// What is no autoencoder does not replace one, and is refused by what it is; models without one have no use for it.
func TestNoReplacedAutoencoder(t *testing.T) {
	for file, why := range map[string]string{
		"checkpoints/vae-decoder-only.safetensors": "half of an autoencoder", "checkpoints/taesd_decoder.safetensors": "got a file of class " + ClassTiny,
		"lora/sd-te1.safetensors": "got a file of class LoRA", "embeddings/one-vector.bin": "got a file of class " + ClassInversion, "upscalers/1x-old.pth": "got a file of class " + ClassUpscaler,
		"checkpoints/other-flux.safetensors": "got FLUX", "checkpoints/other-svd.safetensors": "got a video model", "torch/bad-html.ckpt": "a web page", "hostile/01-os-system.pt": "can run code", "gone.safetensors": "got nothing",
	} {
		for _, path := range []string{bareDirectory(t), beside(t, "checkpoints/sd-no-vae.safetensors", "micro-sd15")} {
			d, err := OpenWith(path, filepath.Join(formats, file), classes()...)
			if err == nil || d != nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), filepath.Base(file)) {
				t.Errorf("%s: %v, want an error with the file and %q", file, err, why)
			}
		}
	}
	for _, path := range []string{filepath.Join(formats, "lora", "sd-te1.safetensors"), filepath.Join(formats, "control", "sd")} {
		if _, err := OpenWith(path, filepath.Join(formats, "gone"), ClassLoRA, "ControlNetModel"); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Autoencoders and textual inversions by themselves are told by their class, and refused where models are expected.
func TestFilesThatAreNoModels(t *testing.T) {
	for _, file := range vaeFiles()[:6] {
		d, err := Open(filepath.Join(formats, "checkpoints", file), ClassVAE)
		if err != nil || d.Class() != ClassVAE {
			t.Errorf("%s: %v", file, err)
		}
	}
	for file, why := range map[string]string{
		"one-vector.bin": "", "learned_embeds.bin": "", "learned_embeds-legacy.bin": "", "<one>.safetensors": "", "zoo-style.pt": "", "f16/zoo-style.safetensors": "", "xl/zoo-style.pt": "",
		"xl-text_encoders/zoo-style.safetensors": "", "legacy/zoo-style.pt": "", "paramdict/zoo-style.pt": "",
		"bad-nan.safetensors": "got NaN in tensor", "bad-empty.safetensors": "got [0, 32] in tensor", "bad-lengths.safetensors": `got 3 in tensor "clip_g"`, "bad-two.bin": "got 2 tensors of something else",
	} {
		d, err := Open(filepath.Join(formats, "embeddings", file), ClassInversion)
		var of *Error
		switch {
		case why == "" && (err != nil || d.Class() != ClassInversion):
			t.Errorf("%s: %v", file, err)
		case why != "" && (!errors.As(err, &of) || !strings.Contains(of.Got, strings.TrimPrefix(why, "got "))):
			t.Errorf("%s: %v, want %q", file, err, why)
		}
	}
	_, err := Open(filepath.Join(formats, "embeddings", "one-vector.bin"), ClassLoRA)
	if err == nil || !strings.Contains(err.Error(), "expected LoRA, got TextualInversion") {
		t.Error(err)
	}
}
