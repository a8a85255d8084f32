package modeldir

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/config/configtest"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tokenizer"
)

// copyModel copies a small model to a folder that a test may spoil.
func copyModel(t *testing.T) string {
	t.Helper()
	dir, from := t.TempDir(), filepath.Join(repo, "testdata/golden/tiny-v")
	for _, name := range []string{"model_index.json", "text_encoder", "unet", "vae", "tokenizer", "scheduler"} {
		var err error
		if strings.HasSuffix(name, ".json") {
			var data []byte
			if data, err = os.ReadFile(filepath.Join(from, name)); err == nil {
				err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
			}
		} else {
			err = os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(from, name)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// editJSON changes keys of a JSON object in a file; a nil value removes the key.
func editJSON(t *testing.T, path string, changes map[string]any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	object := map[string]any{}
	if err := json.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	for key, value := range changes {
		if object[key] = value; value == nil {
			delete(object, key)
		}
	}
	if data, err = json.Marshal(object); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// editHeader changes the header of a safetensors file, leaving the data.
func editHeader(t *testing.T, path string, edit func(header map[string]map[string]any)) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(data)
	header := map[string]map[string]any{}
	if err := json.Unmarshal(data[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	edit(header)
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	if err := os.WriteFile(path, append(append(out, text...), data[8+n:]...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	d, err := OpenStableDiffusion(copyModel(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := d.PixelMultiple(); got != 4 {
		t.Errorf("PixelMultiple %d, want 4, the pixels per latent", got)
	}
	if _, data, err := d.Scheduler(); err != nil || !strings.Contains(string(data), "v_prediction") {
		t.Errorf("scheduler config %q, %v", data, err)
	}
	if _, err := os.Stat(d.Tokenizer()); err != nil {
		t.Error(err)
	}
}

func TestOpenRefusesIncompleteDirectories(t *testing.T) {
	for _, name := range []string{
		"model_index.json", "text_encoder/config.json", "unet/config.json", "vae/config.json",
	} {
		dir := copyModel(t)
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		_, err := OpenStableDiffusion(dir)
		var e *Error
		if !errors.As(err, &e) || e.Path != path || e.Got != "nothing" {
			t.Errorf("without %s: %v, want an Error naming it", name, err)
		}
	}
}

func TestOpenRefusesOtherPipelines(t *testing.T) {
	for key, value := range map[string]any{
		"_class_name":  "StableDiffusionXLPipeline",
		"unet":         []any{nil, nil},
		"vae":          []any{"diffusers", "AutoencoderTiny"},
		"text_encoder": []any{"alt_diffusion", "RobertaSeriesModelWithTransformation"},
		"tokenizer":    "CLIPTokenizer",
	} {
		for _, v := range []any{value, nil} {
			dir := copyModel(t)
			path := filepath.Join(dir, "model_index.json")
			editJSON(t, path, map[string]any{key: v})
			_, err := OpenStableDiffusion(dir)
			var e *config.Error
			if !errors.As(err, &e) || e.File != path || e.Key != key {
				t.Errorf("%s = %v: %v, want a config.Error naming file and key", key, v, err)
			}
		}
	}
}

func TestEveryKeyOfTheReference(t *testing.T) {
	configtest.Walk(t, "StableDiffusionPipeline", func(key string) (string, error) {
		dir := copyModel(t)
		if key != "" {
			editJSON(t, filepath.Join(dir, IndexFile), map[string]any{key: json.RawMessage(configtest.Nonsense)})
		}
		d, err := OpenStableDiffusion(dir)
		if err != nil {
			return "", err
		}
		if _, _, err = d.Scheduler(); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %+v %+v %+v %d %q", d.Class(), d.Text, d.UNet, d.VAE, d.Tokens, d.Warnings), nil
	})
}

// Keys that a class does not know are ignored with a warning; those it knows, notes of diffusers and keys of transformers
// are not worth one.
func TestIgnoredKeys(t *testing.T) {
	dir := copyModel(t)
	for _, folder := range []string{"unet", "vae", "text_encoder"} {
		editJSON(t, filepath.Join(dir, folder, "config.json"), map[string]any{"foo": 1, "bar": nil, "_baz": 1, "dropout": 0, "force_upcast": true})
	}
	editJSON(t, filepath.Join(dir, IndexFile), map[string]any{"foo": []string{"diffusers", "Foo"}, "_bar": 1, "image_encoder": []any{nil, nil}})
	want := map[string][]string{
		"unet": {`unet/config.json: ignores keys that its class does not have: "foo", "force_upcast"`},
		"vae":  {`vae/config.json: ignores keys that its class does not have: "dropout", "foo"`},
	}
	for folder, n := range networks(t, dir) {
		if !slices.Equal(n.Warnings(), want[folder]) {
			t.Errorf("%s warns %q, want %q", folder, n.Warnings(), want[folder])
		}
	}
	for folder, n := range outlined(t, dir) {
		if !slices.Equal(n.Warnings(), want[folder]) {
			t.Errorf("the outline's %s warns %q, want %q", folder, n.Warnings(), want[folder])
		}
	}
	if d, err := OpenStableDiffusion(dir); err != nil || !slices.Equal(d.Warnings, []string{`model_index.json: ignores keys that its class does not have: "foo"`}) {
		t.Errorf("%v, or its index warns %q", err, d.Warnings)
	}
	for _, model := range []string{"testdata/golden/tiny-sd15", "testdata/golden/tiny-v", "models/starter"} {
		for folder, n := range networks(t, filepath.Join(repo, model)) {
			if len(n.Warnings()) > 0 {
				t.Errorf("%s: %s warns %q", model, folder, n.Warnings())
			}
		}
	}
}

// The length of a prompt is the tokenizer's, but no more than the text encoder has positions for.
func TestTokens(t *testing.T) {
	for value, want := range map[string]int{
		`{}`: 77, `{"model_max_length": null, "max_len": 9}`: 77, `{"model_max_length": 20, "max_len": 9}`: 20, `{"max_len": 9}`: 9,
		`{"model_max_length": 1000000000000000019884624838656}`: 77, `{"model_max_length": 1e30}`: 77, `{"model_max_length": 78}`: 77, `{"model_max_length": 2}`: 2,
		`{"model_max_length": 1}`: 0, `{"model_max_length": -1}`: 0, `{"model_max_length": "20"}`: 0, `{"model_max_length": 20.5}`: 0, `{"max_len": [20]}`: 0,
	} {
		dir := copyModel(t)
		if err := os.WriteFile(filepath.Join(dir, "tokenizer", "tokenizer_config.json"), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := OpenStableDiffusion(dir)
		var refused *tokenizer.Error
		switch {
		case want == 0 && (!errors.As(err, &refused) || !strings.HasPrefix(refused.Field, "m")):
			t.Errorf("%s: %v, want a tokenizer.Error that names the key", value, err)
		case want > 0 && (err != nil || d.Tokens != want):
			t.Errorf("%s: %v, want %d tokens", value, err, want)
		}
	}
}

func TestOpenRefusesNetworksThatDoNotFit(t *testing.T) {
	for _, change := range []map[string]any{{"cross_attention_dim": 32}, {"in_channels": 4}, {"out_channels": 16}} {
		dir := copyModel(t)
		path := filepath.Join(dir, "unet", "config.json")
		editJSON(t, path, change)
		_, err := OpenStableDiffusion(dir)
		var e *Error
		if !errors.As(err, &e) || e.Path != path {
			t.Errorf("%v: %v, want an Error naming the file", change, err)
		}
	}
}

func TestOpenNamesTheConfigAtFault(t *testing.T) {
	for folder, change := range map[string]map[string]any{
		"unet": {"class_embed_type": "timestep"}, "vae": {"act_fn": "mish"}, "text_encoder": {"hidden_act": "relu"},
	} {
		dir := copyModel(t)
		path := filepath.Join(dir, folder, "config.json")
		editJSON(t, path, change)
		_, err := OpenStableDiffusion(dir)
		var e *config.Error
		if !errors.As(err, &e) || e.File != path || change[e.Key] == nil {
			t.Errorf("%s %v: %v, want a config.Error naming file and key", folder, change, err)
		}
		if err := os.WriteFile(path, make([]byte, config.MaxBytes+1), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = OpenStableDiffusion(dir)
		var big *Error
		if !errors.As(err, &big) || big.Path != path {
			t.Errorf("%s of more than 1 MiB: %v", folder, err)
		}
	}
}

func TestNetworksRefuseTensorsThatDoNotFit(t *testing.T) {
	const name = "mid_block.resnets.0.conv1.bias" // [48]
	for fault, edit := range map[nn.Fault]func(h map[string]map[string]any){
		nn.Missing:     func(h map[string]map[string]any) { h["renamed"] = h[name]; delete(h, name) },
		nn.Misshapen:   func(h map[string]map[string]any) { h[name]["shape"] = []int{6, 8} },
		nn.Unsupported: func(h map[string]map[string]any) { h[name]["dtype"] = "I32" },
	} {
		dir := copyModel(t)
		path := filepath.Join(dir, "unet", "diffusion_pytorch_model.safetensors")
		editHeader(t, path, edit)
		d, err := OpenStableDiffusion(dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Denoiser()
		var all nn.TensorErrors
		if !errors.As(err, &all) {
			t.Errorf("%v: error %v, want nn.TensorErrors", fault, err)
			continue
		}
		if e := all[0]; e.Fault != fault || e.Tensor != name || !strings.HasPrefix(e.File, filepath.Dir(path)) {
			t.Errorf("%v: got %v", fault, e)
		}
		if fault == nn.Missing && (len(all) != 2 || all[1].Fault != nn.Surplus || all[1].Tensor != "renamed") {
			t.Errorf("the renamed tensor is not reported as surplus: %v", err)
		}
	}
}

func TestAutoencoderHalvesAreIndependent(t *testing.T) {
	dir := copyModel(t)
	editHeader(t, filepath.Join(dir, "vae", "diffusion_pytorch_model.safetensors"), func(h map[string]map[string]any) {
		h["encoder.other"] = h["encoder.conv_in.bias"]
		delete(h, "encoder.conv_in.bias")
	})
	d, err := OpenStableDiffusion(dir)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := d.ImageDecoder()
	if err != nil {
		t.Fatalf("a decoder cannot be opened beside a spoilt encoder: %v", err)
	}
	if err := dec.Close(); err != nil {
		t.Error(err)
	}
	if _, err := d.ImageEncoder(); err == nil {
		t.Error("the spoilt encoder was opened")
	}
}

func TestTapesRefuseSizes(t *testing.T) {
	d, err := OpenStableDiffusion(filepath.Join(repo, "models/starter"))
	if err != nil {
		t.Fatal(err)
	}
	d.UNet.DownsamplePadding = 0
	u, err := d.Denoiser()
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	var wrongLatents *unet.SizeError
	if _, err := u.Tape(1, 16, 18, 77); !errors.As(err, &wrongLatents) || wrongLatents.Multiple != 4 {
		t.Errorf("latents of 16x18 without padding: %v, want a unet.SizeError with multiple 4", err)
	}
	for _, size := range [][3]int{{0, 16, 16}, {-1, 16, 16}, {1, 0, 16}, {1, 16, -4}, {1, 1 << 40, 1 << 40}} {
		if _, err := u.Tape(size[0], size[1], size[2], 77); err == nil {
			t.Errorf("a tape of %v was recorded", size)
		}
	}
	e, err := d.ImageEncoder()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var wrongImage *vae.SizeError
	if _, err := e.Tape(1, 128, 127); !errors.As(err, &wrongImage) || wrongImage.Multiple != 8 {
		t.Errorf("image of 128x127: %v, want a vae.SizeError with multiple 8", err)
	}
}
