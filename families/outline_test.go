package families

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// object is a JSON object, files are those of a model by name.
type (
	object = map[string]any
	files  map[string]object
)

func four(name string) []string { return []string{name, name, name, name} }

func clipConfig(width, layers, heads int) object {
	return object{"model_type": "clip_text_model", "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "num_attention_heads": heads, "projection_dim": width}
}

func vaeConfig(latents int, quant bool) object {
	return object{
		"_class_name": "AutoencoderKL", "block_out_channels": []int{128, 256, 512, 512}, "layers_per_block": 2, "latent_channels": latents, "sample_size": 1024,
		"down_block_types": four("DownEncoderBlock2D"), "up_block_types": four("UpDecoderBlock2D"), "use_quant_conv": quant, "use_post_quant_conv": quant,
	}
}

func index(pipeline string, classes map[string]string) object {
	o := object{"_class_name": pipeline}
	for key, class := range classes {
		o[key] = []string{"diffusers", class}
	}
	return o
}

// sd15 is Stable Diffusion 1.5 (Rombach et al. 2022, arXiv 2112.10752), as the first versions of diffusers wrote it.
func sd15() files {
	vae := vaeConfig(4, true)
	vae["sample_size"] = 512
	return files{
		"model_index.json": index("StableDiffusionPipeline", map[string]string{
			"text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "PNDMScheduler",
		}),
		"text_encoder/config.json": clipConfig(768, 12, 12), "vae/config.json": vae,
		"unet/config.json": {
			"_class_name": "UNet2DConditionModel", "block_out_channels": []int{320, 640, 1280, 1280}, "attention_head_dim": 8, "sample_size": 64, "cross_attention_dim": 768,
			"down_block_types": []string{"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"},
			"up_block_types":   []string{"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"},
		},
		"tokenizer/tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77},
		"scheduler/scheduler_config.json": {
			"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "skip_prk_steps": true, "steps_offset": 1,
		},
	}
}

// schnell is FLUX.1-schnell, which has no guidance.
func schnell() files {
	f := dev1()
	f["transformer/config.json"]["guidance_embeds"] = false
	return f
}

// xl is Stable Diffusion XL (Podell et al. 2023, arXiv 2307.01952), dev1 FLUX.1-dev: the numbers that differ from defaults.
func xl() files {
	return files{
		"model_index.json": index("StableDiffusionXLPipeline", map[string]string{
			"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL",
			"tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer", "scheduler": "EulerDiscreteScheduler",
		}),
		"text_encoder/config.json": clipConfig(768, 12, 12), "text_encoder_2/config.json": clipConfig(1280, 32, 20), "vae/config.json": vaeConfig(4, true),
		"unet/config.json": {
			"_class_name": "UNet2DConditionModel", "block_out_channels": []int{320, 640, 1280}, "attention_head_dim": []int{5, 10, 20}, "sample_size": 128,
			"down_block_types": []string{"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"}, "transformer_layers_per_block": []int{1, 2, 10},
			"up_block_types": []string{"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}, "cross_attention_dim": 2048,
			"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
		},
	}
}

// refiner is that of Stable Diffusion XL, for the end of denoising.
func refiner() files {
	f := xl()
	m, u := f["model_index.json"], f["unet/config.json"]
	m["_class_name"], m["requires_aesthetics_score"] = "StableDiffusionXLImg2ImgPipeline", true
	m["text_encoder"], m["tokenizer"] = []any{nil, nil}, []any{nil, nil}
	u["block_out_channels"], u["attention_head_dim"], u["transformer_layers_per_block"] = []int{384, 768, 1536, 1536}, []int{6, 12, 24, 24}, 4
	u["cross_attention_dim"], u["projection_class_embeddings_input_dim"] = 1280, 2560
	u["down_block_types"] = []string{"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"}
	u["up_block_types"] = []string{"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}
	return f
}

func dev1() files {
	return files{
		"model_index.json": index("FluxPipeline", map[string]string{
			"text_encoder": "CLIPTextModel", "text_encoder_2": "T5EncoderModel", "transformer": "FluxTransformer2DModel", "vae": "AutoencoderKL",
		}),
		"text_encoder/config.json": clipConfig(768, 12, 12), "vae/config.json": vaeConfig(16, false),
		"text_encoder_2/config.json": {"model_type": "t5", "d_model": 4096, "d_ff": 10240, "num_heads": 64, "num_layers": 24, "feed_forward_proj": "gated-gelu", "torch_dtype": "bfloat16"},
		"transformer/config.json":    {"_class_name": "FluxTransformer2DModel", "guidance_embeds": true},
	}
}

func (f files) write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, o := range f {
		data, err := json.Marshal(o)
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700), os.WriteFile(filepath.Join(dir, name), data, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// outline opens the components of a model that every image needs, for plans.
func outline(t *testing.T, dir string, resident map[stage.Kind]tensor.DType) (*family.Model, []*modeldir.Network, error) {
	t.Helper()
	m, err := family.Open(All(), dir, "")
	if err != nil {
		return nil, nil, err
	}
	var nets []*modeldir.Network
	for _, c := range m.Components {
		if !m.Needs(c.Name) {
			continue
		}
		net, err := c.Open(modeldir.Options{Outline: true, Resident: resident[c.Kind]})
		if err != nil {
			return nil, nil, err
		}
		nets = append(nets, net.Files())
	}
	return m, nets, nil
}

func parameters(n *modeldir.Network) (sum int64) {
	for _, param := range n.Manifest().Params {
		n, _ := param.Shape.Elems()
		sum += int64(n)
	}
	return sum
}

// The published numbers of parameters; decoders are those of the autoencoders, without the encoder.
var counts = map[string]map[string]int64{
	"StableDiffusionPipeline":          {"text_encoder": 123_060_480, "unet": 859_520_964, "vae": 49_490_179 + 20},
	"StableDiffusionXLPipeline":        {"text_encoder": 123_060_480, "text_encoder_2": 694_659_840, "unet": 2_567_463_684, "vae": 49_490_179 + 20},
	"StableDiffusionXLImg2ImgPipeline": {"text_encoder_2": 694_659_840, "unet": 2_259_526_660, "vae": 49_490_179 + 20},
	"FluxPipeline":                     {"text_encoder": 123_060_480, "text_encoder_2": 4_762_310_656, "transformer": 11_901_408_320, "vae": 83_819_683 - 34_274_208},
}

// TestOutlines: models that are not there have the parameters of the published ones, and what the engine can run of
// them records at its size.
func TestOutlines(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	for name, c := range map[string]struct {
		files  files
		runs   bool
		latent int // its sides
	}{"sd15": {sd15(), true, 64}, "xl": {xl(), true, 128}, "refiner": {refiner(), true, 128}, "flux": {dev1(), false, 128}, "schnell": {schnell(), false, 128}} {
		m, nets, err := outline(t, c.files.write(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		recipe := m.Recipes[0]
		options := stage.Options{}
		for _, side := range []string{"width", "height"} {
			spec, _ := recipe.Option(side)
			if options[side] = spec.Default; spec.Default.Int != 8*int64(c.latent) {
				t.Errorf("%s: %s %v", name, side, spec.Default)
			}
		}
		if (m.Problem == nil) != c.runs {
			t.Errorf("%s: %v", name, m.Problem)
		}
		at := 0
		for _, turn := range recipe.Choose(nil, nil).For(func(string) bool { return false }) {
			var members []family.Network
			for range turn.Components() {
				part := m.Components[at]
				if nets[at].Complete() || part.Kind != turn.Kind {
					t.Errorf("%s: %+v in turn %s", name, part, turn.Name)
				}
				want := counts[m.Class][part.Folder]
				if name == "schnell" && part.Folder == "transformer" {
					want = 23_782_357_120 / 2
				}
				if strings.HasSuffix(part.Name, "vae.encoder") {
					want = 34_163_592 + 72
				}
				if got := parameters(nets[at]); got != want {
					t.Errorf("%s %s: %d parameters, want %d", m.Class, part.Folder, got, want)
				}
				net, err := part.Open(modeldir.Options{Outline: true})
				if err != nil {
					t.Fatal(err)
				}
				members = append(members, net)
				at++
			}
			all, err := recipe.Complete(recipe.ShapeNames(turn), recipe.Shape(turn, options))
			if err != nil {
				t.Fatal(err)
			}
			runs, err := m.Turns[turn.Name].Runs(members, all)
			var run []int // members
			for _, r := range runs {
				run = append(run, r.Member)
			}
			if run = slices.Compact(run); err != nil || len(run) != len(members) {
				t.Fatalf("%s %s: runs of members %v, %v", name, turn.Name, run, err)
			}
			for _, r := range runs {
				if (r.Tape == nil) != (r.AtLeast > 0) || (r.Formula != "") != (r.Tape == nil) {
					t.Errorf("%s %s: recorded or estimated: %+v", name, turn.Name, r)
				}
				if r.Tape == nil {
					continue
				}
				if n, err := dev.ScratchBytes(r.Tape, device.RunOptions{}); err != nil || n <= 0 {
					t.Errorf("%s: scratch of %d bytes, %v", turn.Name, n, err)
				}
			}
		}
	}
}

// TestOutlineTypes: types are the index's, the config's or else F16, and what is kept is what was asked for.
func TestOutlineTypes(t *testing.T) {
	f := dev1()
	f["text_encoder/config.json"]["dtype"] = "float32"
	m, nets, err := outline(t, f.write(t), map[stage.Kind]tensor.DType{stage.KindDenoiser: tensor.I8})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ dtype, resident tensor.DType }{{tensor.F32, 0}, {tensor.BF16, 0}, {tensor.F16, tensor.I8}, {tensor.F16, 0}} {
		for _, param := range nets[i].Manifest().Params {
			if param.DType != want.dtype || param.Resident != want.resident && param.Name == "x_embedder.weight" {
				t.Fatalf("%s %s: %v kept as %v, want %v", m.Components[i].Name, param.Name, param.DType, param.Resident, want)
			}
		}
	}

	names := object{}
	for _, param := range nets[2].Manifest().Params {
		names[param.Name] = "diffusion_pytorch_model-00001-of-00001.safetensors"
	}
	listed := object{"metadata": object{"total_size": 4 * parameters(nets[2])}, "weight_map": names}
	f["transformer/diffusion_pytorch_model.safetensors.index.json"] = listed
	if _, nets, err = outline(t, f.write(t), nil); err != nil {
		t.Fatal(err)
	}
	if d := nets[2].Manifest().Params[0].DType; d != tensor.F32 {
		t.Errorf("of an index of four bytes a parameter: %v", d)
	}
	delete(names, "proj_out.weight")
	names["proj_in.weight"] = "diffusion_pytorch_model-00001-of-00001.safetensors"
	var all nn.TensorErrors
	if _, _, err := outline(t, f.write(t), nil); !errors.As(err, &all) || len(all) != 2 || all[0].Fault != nn.Missing || all[1].Fault != nn.Surplus {
		t.Errorf("of an index with another name: %v", err)
	}
}

// TestOutlineRefusals: every refusal names the file, the value and what is accepted.
func TestOutlineRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		of    func() files
		spoil func(files)
		told  []string
	}{
		"another pipeline":   {xl, func(f files) { f["model_index.json"]["_class_name"] = "KolorsPipeline" }, []string{"model_index.json", "KolorsPipeline", "FluxPipeline", "StableDiffusionXLPipeline"}},
		"no pipeline":        {xl, func(f files) { delete(f["model_index.json"], "_class_name") }, []string{"_class_name", "absent", "StableDiffusionPipeline"}},
		"another network":    {dev1, func(f files) { f["model_index.json"]["text_encoder_2"] = []string{"transformers", "UMT5EncoderModel"} }, []string{"UMT5EncoderModel", "T5EncoderModel"}},
		"no network":         {dev1, func(f files) { delete(f["model_index.json"], "transformer") }, []string{"transformer", "FluxTransformer2DModel"}},
		"no config":          {dev1, func(f files) { delete(f, "vae/config.json") }, []string{"vae/config.json", "nothing"}},
		"a number of states": {xl, func(f files) { f["unet/config.json"]["cross_attention_dim"] = 768 }, []string{"unet/config.json", "cross_attention_dim 2048", "768"}},
		"a number of text":   {dev1, func(f files) { f["transformer/config.json"]["joint_attention_dim"] = 2048 }, []string{"joint_attention_dim 4096"}},
		"a number of pooled": {dev1, func(f files) { f["transformer/config.json"]["pooled_projection_dim"] = 1 }, []string{"pooled_projection_dim 768"}},
		"latents":            {dev1, func(f files) { f["vae/config.json"]["latent_channels"] = 4 }, []string{"in_channels 16"}},
		"an absurd size":     {dev1, func(f files) { f["transformer/config.json"]["num_layers"] = 1_000_000_000 }, []string{"num_layers", "1000000000", "0 to 128"}},
		"an absurd width":    {xl, func(f files) { f["text_encoder_2/config.json"]["projection_dim"] = 1 << 40 }, []string{"projection_dim"}},
		"a type":             {dev1, func(f files) { f["text_encoder_2/config.json"]["torch_dtype"] = "float8_e4m3fn" }, []string{"torch_dtype", "float8", "bfloat16"}},
		"an addition of 1.5": {func() files {
			f := xl()
			f["model_index.json"] = index("StableDiffusionPipeline", map[string]string{"text_encoder": "CLIPTextModel", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "tokenizer": "CLIPTokenizer"})
			return f
		}, func(f files) { f["unet/config.json"]["cross_attention_dim"] = 768 }, []string{"addition_embed_type", "text_time"}},
	} {
		f := c.of()
		c.spoil(f)
		_, _, err := outline(t, f.write(t), nil)
		var (
			ofConfig config.Errors
			ofDir    *modeldir.Error
		)
		if !errors.As(err, &ofConfig) && !errors.As(err, &ofDir) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, told := range c.told {
			if !strings.Contains(err.Error(), told) {
				t.Errorf("%s: %v does not tell %q", name, err, told)
			}
		}
	}

	dir := xl().write(t)
	if err := os.WriteFile(filepath.Join(dir, "unet", "diffusion_pytorch_model.safetensors"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	var ofWeights *weights.Error
	if _, _, err := outline(t, dir, nil); !errors.As(err, &ofWeights) {
		t.Errorf("of a damaged file: %v", err)
	}
}

// TestDefaults: what the configs of Stable Diffusion 1.5 leave to defaults is that of diffusers and transformers.
func TestDefaults(t *testing.T) {
	d, err := modeldir.OpenStableDiffusion(sd15().write(t))
	if err != nil {
		t.Fatal(err)
	}
	if d.UNet.ContextDim != 768 || d.UNet.Heads[0] != 8 || d.UNet.SampleHeight != 64 || d.VAE.Factor() != 8 || d.Text.Layers != 12 || !d.Text.QuickGELU {
		t.Errorf("%+v", d)
	}
}
