package modeldir

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
)

// publishedFile makes a file with the names and shapes of a published one, in F16, whose data is a hole.
func publishedFile(t *testing.T, list string) string {
	t.Helper()
	f, err := os.Open(filepath.Join("../../../testdata/golden/sdxl/names", list+".txt.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	header, end := map[string]any{}, int64(0)
	for lines := bufio.NewScanner(unzipped); lines.Scan(); {
		name, sides, _ := strings.Cut(lines.Text(), " ")
		shape, begin, elems := []int{}, end, int64(1)
		for _, side := range strings.FieldsFunc(sides, func(r rune) bool { return r == 'x' }) {
			n, err := strconv.Atoi(side)
			if err != nil {
				t.Fatal(err)
			}
			shape, elems = append(shape, n), elems*int64(n)
		}
		end += 2 * elems
		header[name] = map[string]any{"dtype": "F16", "shape": shape, "data_offsets": []int64{begin, end}}
	}
	data, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), list+".safetensors")
	if err := os.WriteFile(path, append(binary.LittleEndian.AppendUint64(nil, uint64(len(data))), data...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(8+len(data))+end); err != nil {
		t.Skip(err)
	}
	for _, folder := range []string{"tokenizer", "tokenizer_2"} { // of a model in the same folder
		to := filepath.Join(filepath.Dir(path), "other", folder)
		if err := os.MkdirAll(to, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{filepath.Join(to, "vocab.json"): "{}", filepath.Join(to, "..", IndexFile): "{}"} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return path
}

// Of the widths that were published, configs are known without any file beside the checkpoint.
func TestPublishedConfigs(t *testing.T) {
	published := vae.Config{
		LatentChannels: 4, Channels: []int{128, 256, 512, 512}, Layers: 2, Groups: 32, MidAttention: true, QuantConv: true, PostQuantConv: true, ScalingFactor: 0.18215,
	}
	xl := published
	xl.ScalingFactor = 0.13025
	for list, want := range map[string]struct {
		class string
		unet  string // the published config.json, as far as it decides anything
		vae   vae.Config
		texts []string
	}{
		"sd15-single-file": {ClassStableDiffusion, `{"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}`, published, []string{
			`{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "quick_gelu"}`,
		}},
		"sdxl-single-file": {"StableDiffusionXLPipeline", `{"sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280],
			"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
			"transformer_layers_per_block": [1, 2, 10], "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}`, xl, []string{
			`{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "quick_gelu"}`,
			`{"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu", "projection_dim": 1280}`,
		}},
	} {
		d, err := Open(publishedFile(t, list), classes()...)
		if err != nil {
			t.Fatal(err)
		}
		if d.Class() != want.class {
			t.Errorf("%s is a %s, want %s", list, d.Class(), want.class)
		}
		asPublished(t, d, UNetFolder, unet.ParseConfig, want.unet)
		got, err := Config(d, VAEFolder, vae.ParseConfig)
		if diff := cmp.Diff(want.vae, got); err != nil || diff != "" {
			t.Errorf("%s: vae %v %s", list, err, diff)
		}
		for i, folder := range []string{TextEncoderFolder, TextEncoder2Folder}[:len(want.texts)] {
			asPublished(t, d, folder, clip.ParseConfig, want.texts[i])
			n, err := network(d, folder)
			if err != nil {
				t.Errorf("%s: %s: %v", list, folder, err)
				continue
			}
			_ = n.Close()
		}
		for _, folder := range []string{UNetFolder, VAEFolder, "encoder"} {
			n, err := network(d, folder)
			if err != nil {
				t.Errorf("%s: %s: %v", list, folder, err)
				continue
			}
			if text := fmt.Sprint(n.Warnings()); len(n.Warnings()) > 0 {
				t.Errorf("%s: %s warns: %s", list, folder, text)
			}
			_ = n.Close()
		}
	}
}

// asPublished compares a config with a published one, as it is read.
func asPublished[C any](t *testing.T, d *Dir, folder string, parse func([]byte) (C, error), want string) {
	t.Helper()
	got, err := Config(d, folder, parse)
	if err != nil {
		t.Error(err)
		return
	}
	published, err := parse([]byte(want))
	if diff := cmp.Diff(published, got); err != nil || diff != "" {
		t.Errorf("%s %s: %v %s", d.Name(), folder, err, diff)
	}
}
