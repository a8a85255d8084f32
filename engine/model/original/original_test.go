package original

import (
	"bufio"
	"compress/gzip"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

const golden = "../../../testdata/golden"

// published reads the names and shapes of a file as it was published.
func published(t *testing.T, name string) map[string]tensor.Shape {
	t.Helper()
	f, err := os.Open(filepath.Join(golden, "sdxl", "names", name+".txt.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]tensor.Shape{}
	for lines := bufio.NewScanner(unzipped); lines.Scan(); {
		name, sides, _ := strings.Cut(lines.Text(), " ")
		shape := tensor.Shape{}
		for _, side := range strings.FieldsFunc(sides, func(r rune) bool { return r == 'x' }) {
			n, err := strconv.Atoi(side)
			if err != nil {
				t.Fatal(err)
			}
			shape = append(shape, n)
		}
		out[name] = shape
	}
	return out
}

// part are parameters with the prefix of a checkpoint, and the shapes that stored tensors have.
func part(prefix string, params []Param) map[string]tensor.Shape {
	out := map[string]tensor.Shape{}
	for _, p := range params {
		shape := slices.Clone(p.Shape)
		if p.Parts > 0 {
			shape[0] *= p.Parts
		}
		if p.Transposed {
			slices.Reverse(shape)
		}
		out[prefix+p.Original] = shape
	}
	return out
}

// compare reports names that one side lacks, and shapes that differ by more than the sides of 1 of a 1x1 convolution.
func compare(t *testing.T, stored, want map[string]tensor.Shape, leftover func(string) bool) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		shape, there := want[name]
		switch s := stored[name]; {
		case !there && !leftover(name):
			t.Errorf("%s %v is not in the table", name, s)
		case there && !s.Equal(shape) && !s.Equal(append(slices.Clone(shape), 1, 1)):
			t.Errorf("%s is %v, in the table %v", name, s, shape)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if stored[name] == nil {
			t.Errorf("%s is in the table and not in the file", name)
		}
	}
}

func encoder(width, layers int) clip.Config {
	return clip.Config{VocabSize: 49408, HiddenSize: width, Intermediate: 4 * width, Layers: layers, Heads: width / 64, MaxPositions: 77}
}

func merge(parts ...map[string]tensor.Shape) map[string]tensor.Shape {
	out := map[string]tensor.Shape{}
	for _, p := range parts {
		maps.Copy(out, p)
	}
	return out
}

func autoencoder() vae.Config {
	return vae.Config{LatentChannels: 4, Channels: []int{128, 256, 512, 512}, Layers: 2, Groups: 32, MidAttention: true, QuantConv: true, PostQuantConv: true}
}

func TestStableDiffusionXLAsPublished(t *testing.T) {
	net := unet.Config{
		InChannels: 4, OutChannels: 4, Channels: []int{320, 640, 1280}, DownAttention: []bool{false, true, true}, UpAttention: []bool{true, true, false},
		Layers: []int{2, 2, 2}, TransformerLayers: []int{1, 2, 10}, Heads: []int{5, 10, 20}, ContextDim: 2048, Groups: 32, TimeDim: 1280,
		ConvInKernel: 3, ConvOutKernel: 3, AdditionDim: 2816, AdditionTimeDim: 256,
	}
	want := merge(
		part(UNetPrefix, UNet(net)), part(VAEPrefix, VAE(autoencoder())),
		part(XLTextPrefix, CLIP(encoder(768, 12), 0, false)), part(XLText2Prefix, OpenCLIP(encoder(1280, 32), 1280)),
	)
	compare(t, published(t, "sdxl-single-file"), want, func(name string) bool {
		return name == XLTextPrefix+"text_model.embeddings.position_ids" || name == XLText2Prefix+"logit_scale"
	})
}

func TestStableDiffusion15AsPublished(t *testing.T) {
	net := unet.Config{
		InChannels: 4, OutChannels: 4, Channels: []int{320, 640, 1280, 1280}, DownAttention: []bool{true, true, true, false}, UpAttention: []bool{false, true, true, true},
		Layers: []int{2, 2, 2, 2}, TransformerLayers: []int{1, 1, 1, 1}, Heads: []int{8, 8, 8, 8}, ContextDim: 768, Groups: 32, TimeDim: 1280,
		ConvInKernel: 3, ConvOutKernel: 3,
	}
	want := merge(part(UNetPrefix, UNet(net)), part(VAEPrefix, VAE(autoencoder())), part(TextPrefix, CLIP(encoder(768, 12), 0, false)))
	compare(t, published(t, "sd15-single-file"), want, func(name string) bool {
		return !strings.Contains(name, ".") || name == TextPrefix+"text_model.embeddings.position_ids" // schedules
	})
}

// stored are the tensors of a file below a prefix.
func stored(t *testing.T, prefix string, path ...string) map[string]tensor.Shape {
	t.Helper()
	set, err := weights.OpenFile(filepath.Join(append([]string{golden, "formats"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	out := map[string]tensor.Shape{}
	for _, name := range set.Names() {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			_, shape, _ := set.Info(name)
			out[rest] = shape
		}
	}
	return out
}

// config reads a config of a network.
func config[C any](t *testing.T, parse func([]byte) (C, error), folder ...string) C {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append(append([]string{golden, "formats"}, folder...), "config.json")...))
	if err != nil {
		t.Fatal(err)
	}
	c, err := parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Files of the goldens have the widths and depths of no published model.
func TestOddWidths(t *testing.T) {
	none := func(string) bool { return false }
	for _, test := range []struct{ file, folder, prefix string }{
		{"checkpoints/sd.safetensors", "micro-sd15", UNetPrefix},
		{"checkpoints/xl.safetensors", "micro-sdxl", UNetPrefix},
		{"checkpoints/sd2-v.safetensors", "micro-sd2", UNetPrefix},
		{"checkpoints/sd-inpaint.safetensors", "micro-inpaint", UNetPrefix},
	} {
		t.Run(test.file+" unet", func(t *testing.T) {
			compare(t, stored(t, test.prefix, test.file), part("", UNet(config(t, unet.ParseConfig, test.folder, "unet"))), none)
		})
	}
	for file, folder := range map[string]string{"sd": "micro-sd15", "xl": "micro-sdxl"} {
		t.Run(file+" vae", func(t *testing.T) {
			compare(t, stored(t, VAEPrefix, "checkpoints", file+".safetensors"), part("", VAE(config(t, vae.ParseConfig, folder, "vae"))), none)
		})
	}
	ids := func(name string) bool {
		return strings.HasSuffix(name, "position_ids") || name == "logit_scale" || name == "attn_mask"
	}
	first := config(t, clip.ParseConfig, "micro-sd15", "text_encoder")
	compare(t, stored(t, TextPrefix, "checkpoints", "sd.safetensors"), part("", CLIP(first, 0, false)), ids)
	compare(t, stored(t, TextPrefix, "checkpoints", "sd-te-old-names.safetensors"), part("", CLIP(first, 0, true)), ids)
	second := config(t, clip.ParseConfig, "micro-sdxl", "text_encoder_2")
	file := stored(t, XLText2Prefix, "checkpoints", "xl.safetensors")
	compare(t, file, part("", OpenCLIP(second, file["text_projection"][1])), ids)
	compare(t, stored(t, "conditioner.embedders.1.transformer.", "checkpoints", "xl-te2-hf.safetensors"), part("", CLIP(second, file["text_projection"][1], false)), ids)
}

func TestModules(t *testing.T) {
	net := config(t, unet.ParseConfig, "micro-sd15", "unet")
	table := map[string]string{}
	for _, m := range Modules(UNet(net)) {
		if table[m.Name] != "" {
			t.Errorf("%s is there twice", m.Name)
		}
		table[m.Name] = m.Original
	}
	got := map[string]string{}
	for _, name := range []string{
		"time_embedding.linear_2", "conv_in", "down_blocks.0.downsamplers.0.conv", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
		"down_blocks.1.resnets.0.time_emb_proj", "down_blocks.1.resnets.0.conv_shortcut", "mid_block.attentions.0.proj_in", "up_blocks.0.upsamplers.0.conv",
	} {
		got[name] = table[name]
	}
	want := map[string]string{
		"time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0", "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
		"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0": "input_blocks.1.1.transformer_blocks.0.attn1.to_out.0",
		"down_blocks.1.resnets.0.time_emb_proj":                          "input_blocks.3.0.emb_layers.1",
		"down_blocks.1.resnets.0.conv_shortcut":                          "input_blocks.3.0.skip_connection",
		"mid_block.attentions.0.proj_in":                                 "middle_block.1.proj_in", "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, m := range Modules(OpenCLIP(encoder(64, 1), 64)) {
		if strings.Contains(m.Original, "in_proj") || m.Original == "" {
			t.Errorf("%+v is no layer of its own", m)
		}
	}
}
