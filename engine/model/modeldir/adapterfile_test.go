package modeldir

import (
	"path/filepath"
	"strings"
	"testing"
)

// A file with the decoder of a tiny autoencoder is a model by itself; its encoder alone is none.
func TestTinyFiles(t *testing.T) {
	const dir = "../../../testdata/golden/formats/checkpoints/"
	for _, file := range []string{"taesd_decoder.pth", "taesd_decoder.safetensors", "taesd_diffusers.safetensors"} {
		d, err := Open(dir+file, ClassTiny)
		if err != nil {
			t.Error(err)
			continue
		}
		net, err := d.TinyDecoder(Options{})
		if err != nil || net.Close() != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	if _, err := Open(dir+"taesd_encoder.safetensors", ClassTiny); err == nil {
		t.Error("an encoder alone is taken")
	}
}

// A file with the network of an upscaler is a model by itself, under every name that is published; what is akin to one is told by what
// it is.
func TestUpscalerFiles(t *testing.T) {
	files, err := filepath.Glob("../../../testdata/golden/formats/upscalers/*.[ps][ta]*")
	if err != nil || len(files) < 24 {
		t.Fatal(len(files), err)
	}
	refused := map[string]string{
		"bad-spsr": "SPSR", "bad-esrgan-plus": "ESRGAN+", "bad-swinir": "SwinIR", "bad-span": "SPAN", "bad-discriminator": "discriminator", "bad-missing": "",
	}
	for _, file := range files {
		d, err := Open(file, ClassUpscaler)
		var net *Upscaler
		if err == nil {
			net, err = d.Upscaler(Options{})
		}
		says, bad := refused[NameOf(file)]
		switch {
		case bad && (err == nil || !strings.Contains(err.Error(), says)):
			t.Errorf("%s: %v, want an error about %s", file, err, says)
		case !bad && err != nil:
			t.Errorf("%s: %v", file, err)
		case !bad:
			if net.Name() != NameOf(file) || net.Close() != nil {
				t.Errorf("%s is called %s", file, net.Name())
			}
		}
	}
}
