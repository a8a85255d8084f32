package modeldir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/weights"
)

// The weight files of copyModel's networks.
const (
	textFile = "text_encoder/model.safetensors"
	unetFile = "unet/diffusion_pytorch_model.safetensors"
	vaeFile  = "vae/diffusion_pytorch_model.safetensors"
)

// addTensors adds tensors without data to a safetensors file.
func addTensors(t *testing.T, path, dtype string, names ...string) {
	t.Helper()
	editHeader(t, path, func(h map[string]map[string]any) {
		end := 0
		for _, e := range h {
			if offsets, ok := e["data_offsets"].([]any); ok {
				end = max(end, int(offsets[1].(float64)))
			}
		}
		for _, name := range names {
			h[name] = map[string]any{"dtype": dtype, "shape": []int{0, 2}, "data_offsets": []int{end, end}}
		}
	})
}

// networks opens the three networks of a model that are needed for an image.
func networks(t *testing.T, path string) map[string]*Network {
	t.Helper()
	return opened(t, path, Options{})
}

// outlined opens them for plans.
func outlined(t *testing.T, path string) map[string]*Network {
	t.Helper()
	return opened(t, path, Options{Outline: true})
}

func opened(t *testing.T, path string, o Options) map[string]*Network {
	t.Helper()
	d, err := OpenStableDiffusion(path)
	if err != nil {
		t.Fatal(err)
	}
	d.Options = o
	text, errT := d.TextEncoder()
	unet, errU := d.Denoiser()
	vae, errV := d.ImageDecoder()
	if err := errors.Join(errT, errU, errV); err != nil {
		t.Fatal(err)
	}
	out := map[string]*Network{TextEncoderFolder: &text.Network, UNetFolder: &unet.Network, VAEFolder: &vae.Network}
	for _, n := range out {
		t.Cleanup(func() { _ = n.Close() }) // it was only read
	}
	return out
}

// TestSurplusTensorsAreIgnored: whatever a file has beside what a network needs, one warning names the first few.
func TestSurplusTensorsAreIgnored(t *testing.T) {
	many := []string{"logit_scale"}
	for i := range 100 {
		many = append(many, fmt.Sprintf("vision_model.encoder.layers.%02d.mlp.fc1.weight", i))
	}
	for name, c := range map[string]struct {
		file, dtype string
		names       []string
		want        []string // warnings
	}{
		"position numbers":  {textFile, "I64", []string{"text_model.embeddings.position_ids"}, nil},
		"a projection":      {textFile, "F32", []string{"text_projection.weight"}, nil},
		"the image encoder": {vaeFile, "F32", []string{"encoder.foo", "quant_conv.foo"}, nil},
		"one tensor":        {vaeFile, "I32", []string{"foo.bar"}, []string{`vae: ignores tensors that the network does not have: "foo.bar"`}},
		"an unknown type":   {unetFile, "F1_FUTURE", []string{"foo.bar", "a"}, []string{`unet: ignores tensors that the network does not have: "a", "foo.bar"`}},
		"a long name":       {unetFile, "F32", []string{strings.Repeat("n", 1000)}, []string{`unet: ignores tensors that the network does not have: "` + strings.Repeat("n", 100) + `"`}},
		"a whole CLIP": {textFile, "F16", many, []string{`text_encoder: ignores tensors that the network does not have: "logit_scale", "vision_model.encoder.layers.00.mlp.fc1.weight", ` +
			`"vision_model.encoder.layers.01.mlp.fc1.weight", "vision_model.encoder.layers.02.mlp.fc1.weight", "vision_model.encoder.layers.03.mlp.fc1.weight" and 96 more`}},
	} {
		dir := copyModel(t)
		addTensors(t, filepath.Join(dir, filepath.FromSlash(c.file)), c.dtype, c.names...)
		outlines := outlined(t, dir)
		for folder, n := range networks(t, dir) {
			var want []string
			if strings.HasPrefix(c.file, folder) {
				want = c.want
			}
			if !slices.Equal(n.Warnings(), want) {
				t.Errorf("%s: the %s warns %q, want %q", name, folder, n.Warnings(), want)
			}
			if got := outlines[folder].Warnings(); !slices.Equal(got, want) {
				t.Errorf("%s: the outline's %s warns %q, want %q", name, folder, got, want)
			}
		}
	}
}

// TestNeededTypesAreNamed: a parameter in a type that is not read is refused by the name of the type.
func TestNeededTypesAreNamed(t *testing.T) {
	const name = "mid_block.resnets.0.conv1.bias" // 48 values in 192 bytes
	for dtype, size := range map[string]int{"F8_E8M0": 1, "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "C64": 8, "F1_FUTURE": 3} {
		dir := copyModel(t)
		editHeader(t, filepath.Join(dir, filepath.FromSlash(unetFile)), func(h map[string]map[string]any) {
			h[name]["dtype"], h[name]["shape"] = dtype, []int{192 / size}
		})
		d, err := OpenStableDiffusion(dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Denoiser()
		var e *nn.TensorError
		if !errors.As(err, &e) || e.Fault != nn.Unsupported || e.Tensor != name || e.Got != dtype || !strings.Contains(e.Expected, "F64") {
			t.Errorf("%s: %v", dtype, err)
		}
	}
}

// TestVariants: where weights have the name of a variant only, it is used and named.
func TestVariants(t *testing.T) {
	dir := copyModel(t)
	plain := filepath.Join(dir, filepath.FromSlash(unetFile))
	variant := strings.TrimSuffix(plain, ".safetensors") + ".fp16.safetensors"
	if err := os.Rename(plain, variant); err != nil {
		t.Fatal(err)
	}
	n := networks(t, dir)[UNetFolder]
	want := []string{"unet: uses the fp16 variant, there are no other weights than diffusion_pytorch_model.fp16.safetensors"}
	if !slices.Equal(n.Warnings(), want) || n.Tensors()[0].File != variant {
		t.Errorf("%q of %s, want %q", n.Warnings(), n.Tensors()[0].File, want)
	}
}

// TestWeightsOfAnotherLibrary: a file that the folder's library does not read is not opened, and named if there is no other.
func TestWeightsOfAnotherLibrary(t *testing.T) {
	for file, other := range map[string]string{unetFile: "model.safetensors", vaeFile: "model.safetensors", textFile: "diffusion_pytorch_model.safetensors"} {
		dir := copyModel(t)
		right := filepath.Join(dir, filepath.FromSlash(file))
		wrong := filepath.Join(filepath.Dir(right), other)
		if err := os.WriteFile(wrong, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
		networks(t, dir)
		if err := os.Remove(right); err != nil {
			t.Fatal(err)
		}
		d, err := OpenStableDiffusion(dir)
		if err != nil {
			t.Fatal(err)
		}
		_, errT := d.TextEncoder()
		_, errU := d.Denoiser()
		_, errV := d.ImageDecoder()
		var e *weights.Error
		if err := errors.Join(errT, errU, errV); !errors.As(err, &e) || e.File != filepath.Dir(right) || !strings.Contains(e.Expected, filepath.Base(right)) || e.Got != other {
			t.Errorf("%s beside no %s: %v", other, file, err)
		}
	}
}
