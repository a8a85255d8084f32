package unet

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// The settings of the published models that differ from diffusers' defaults.
const (
	stableDiffusion15 = `{"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}`
	stableDiffusion21 = `{"_class_name": "UNet2DConditionModel", "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20],
		"sample_size": 96, "use_linear_projection": true, "dual_cross_attention": false, "upcast_attention": true,
		"only_cross_attention": false, "num_class_embeds": null, "mid_block_scale_factor": 1, "decay": 0.9999}`
	stableDiffusionXL = `{"_class_name": "UNet2DConditionModel", "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
		"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "transformer_layers_per_block": [1, 2, 10],
		"up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": 2048, "sample_size": 128,
		"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}`
)

// agreeable has every tensor, scalar.
type agreeable struct{}

func (agreeable) Info(string) (tensor.DType, tensor.Shape, bool) { return tensor.F16, nil, true }
func (agreeable) TypeName(string) string                         { return "" }
func (agreeable) Where(string) string                            { return "unet.safetensors" }
func (agreeable) Names() []string                                { return nil }

func mustParse(t *testing.T, data string) Config {
	t.Helper()
	c, err := ParseConfig([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Published parameter counts: 859,520,964 for Stable Diffusion 1.5, 865,910,724 for 2.1, 2,567,463,684 for XL.
func TestParameterCounts(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		want   int
	}{"1.5": {stableDiffusion15, 859520964}, "2.1": {stableDiffusion21, 865910724}, "XL": {stableDiffusionXL, 2567463684}} {
		s := nn.NewScope(agreeable{})
		New(s, mustParse(t, c.config))
		got := 0
		for _, p := range s.Manifest().Params {
			n, _ := p.Shape.Elems()
			got += n
		}
		if got != c.want {
			t.Errorf("Stable Diffusion %s: %d parameters, want %d", name, got, c.want)
		}
	}
}

func TestForwardRecords(t *testing.T) {
	for _, data := range []string{
		stableDiffusion15, stableDiffusion21,
		`{"block_out_channels": [32], "down_block_types": ["DownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D"], "layers_per_block": [3]}`,
		`{"block_out_channels": [32, 64], "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
		  "layers_per_block": [1, 3], "transformer_layers_per_block": [2, 1], "downsample_padding": 0, "conv_in_kernel": 1, "conv_out_kernel": 5,
		  "time_embedding_dim": 48, "in_channels": 9, "out_channels": 5}`,
	} {
		cfg := mustParse(t, data)
		s := nn.NewScope(agreeable{})
		m := New(s, cfg)
		tape := device.NewTape(s.Manifest())
		h, w := 2*cfg.SizeMultiple(), 3*cfg.SizeMultiple()
		out := m.Forward(tape, Inputs{Latents: tape.Input("latents", 2, h, w, cfg.InChannels), Time: tape.Input("time", 1, cfg.Channels[0]), Context: tape.Input("context", 2, 77, cfg.ContextDim)})
		if err := tape.Err(); err != nil {
			t.Errorf("%s: %v", data, err)
		} else if want := (tensor.Shape{2, h, w, cfg.OutChannels}); !out.Shape.Equal(want) {
			t.Errorf("%s: output %v, want %v", data, out.Shape, want)
		}
	}
}

// The norms differ in epsilon, which the golden tensors can hardly see: 1e-6 at the entry of a
// transformer and 1e-5 inside it (fixed in diffusers), norm_eps everywhere else.
func TestEpsilons(t *testing.T) {
	cfg := mustParse(t, `{"norm_eps": 1e-3, "layers_per_block": 1}`)
	s := nn.NewScope(agreeable{})
	m := New(s, cfg)
	tape := device.NewTape(s.Manifest())
	m.Forward(tape, Inputs{Latents: tape.Input("latents", 1, 8, 8, cfg.InChannels), Time: tape.Input("time", 1, cfg.Channels[0]), Context: tape.Input("context", 1, 77, cfg.ContextDim)})
	seen := map[float32]int{}
	check := func(gamma device.Weight, eps, entry, other float32) {
		t.Helper()
		want := other
		name := s.Manifest().At(gamma).Name
		if strings.Contains(name, "attentions") && strings.HasSuffix(name, ".norm.weight") {
			want = entry
		}
		seen[eps]++
		if eps != want {
			t.Errorf("%s: epsilon %g, want %g", name, eps, want)
		}
	}
	for _, op := range tape.Ops() {
		switch o := op.(type) {
		case *device.GroupNorm:
			check(o.Gamma, o.Eps, 1e-6, 1e-3)
		case *device.LayerNorm:
			check(o.Gamma, o.Eps, 1e-5, 1e-5)
		}
	}
	// 3 transformers down, 1 in the middle, 6 up, of 3 layer norms each; 2 norms for each of 4+2+8
	// residual blocks and 1 at the end.
	if want := map[float32]int{1e-6: 10, 1e-5: 30, 1e-3: 29}; !maps.Equal(seen, want) {
		t.Errorf("norms by epsilon %v, want %v", seen, want)
	}
}

// Every size of latents is recorded, down to those that a level halves to one cell, and comes out as it went in.
func TestForwardRecordsEverySize(t *testing.T) {
	cfg := mustParse(t, stableDiffusion15)
	s := nn.NewScope(agreeable{})
	m := New(s, cfg)
	for h := 1; h <= 17; h++ {
		tape := device.NewTape(s.Manifest())
		out := m.Forward(tape, Inputs{Latents: tape.Input("latents", 1, h, 18-h, 4), Time: tape.Input("time", 1, 320), Context: tape.Input("context", 1, 77, 768)})
		if err := tape.Err(); err != nil || out.Shape[1] != h || out.Shape[2] != 18-h {
			t.Errorf("latents of %dx%d become %v, %v", h, 18-h, out.Shape, err)
		}
	}
}

func TestSampleSize(t *testing.T) {
	for config, want := range map[string][2]int{
		`{}`:                    {0, 0},
		`{"sample_size": null}`: {0, 0},
		`{"sample_size": 32}`:   {32, 32},
		`{"sample_size": [48, 80], "_diffusers_version": "0.6.0"}`:                                   {48, 80},
		`{"sample_size": 32, "_diffusers_version": "0.6.0"}`:                                         {64, 64},
		`{"sample_size": 96, "_diffusers_version": "0.6.0"}`:                                         {96, 96},
		`{"sample_size": 32, "_diffusers_version": "0.8.1.dev0"}`:                                    {64, 64},
		`{"sample_size": 32, "_diffusers_version": "0.9"}`:                                           {32, 32},
		`{"sample_size": 32, "_diffusers_version": "0.9.0.dev0"}`:                                    {32, 32},
		`{"sample_size": 32, "_diffusers_version": "0.10.2"}`:                                        {32, 32},
		`{"sample_size": 32, "_diffusers_version": "1"}`:                                             {32, 32},
		`{"sample_size": 32, "_diffusers_version": "0.6.0", "_use_default_values": ["sample_size"]}`: {0, 0},
		`{"_diffusers_version": "0.6.0"}`:                                                            {0, 0},
	} {
		if c := mustParse(t, config); c.SampleHeight != want[0] || c.SampleWidth != want[1] {
			t.Errorf("%s: %dx%d, want %v", config, c.SampleHeight, c.SampleWidth, want)
		}
	}
}

// Without padding a level rounds halves down, and what it loses does not come back.
func TestForwardRefusesSizes(t *testing.T) {
	cfg := mustParse(t, strings.Replace(stableDiffusion15, "{", `{"downsample_padding": 0, `, 1))
	s := nn.NewScope(agreeable{})
	m := New(s, cfg)
	for _, size := range [][2]int{{9, 8}, {8, 4}, {65, 64}} {
		tape := device.NewTape(s.Manifest())
		m.Forward(tape, Inputs{Latents: tape.Input("latents", 1, size[0], size[1], 4), Time: tape.Input("time", 1, 320), Context: tape.Input("context", 1, 77, 768)})
		var e *SizeError
		if !errors.As(tape.Err(), &e) || e.Height != size[0] || e.Width != size[1] || e.Multiple != 8 {
			t.Errorf("latents %v: %v, want a SizeError with multiple 8", size, tape.Err())
		}
	}
}

// TestAddition: Stable Diffusion XL is conditioned on a vector for each image, whose embedding depends on nothing that
// changes from step to step; networks with and without it do not take the other's inputs.
func TestAddition(t *testing.T) {
	record := func(config string, added bool) (*device.Tape, device.Array) {
		s := nn.NewScope(agreeable{})
		m := New(s, mustParse(t, config))
		tape := device.NewTape(s.Manifest())
		in := Inputs{Latents: tape.Input("latents", 2, 8, 8, 4), Time: tape.Input("time", 2, 320), Context: tape.FixedInput("context", 2, 77, m.cfg.ContextDim)}
		if added {
			in.Addition = tape.FixedInput("addition", 2, 2816)
		}
		return tape, m.Forward(tape, in)
	}
	tape, out := record(stableDiffusionXL, true)
	if tape.Err() != nil || !out.Shape.Equal(tensor.Shape{2, 8, 8, 4}) {
		t.Fatalf("%v, %v", out.Shape, tape.Err())
	}
	early := 0
	for _, op := range tape.Ops()[:tape.Prologue()] {
		if g, ok := op.(*device.Gemm); ok && strings.HasPrefix(tape.Manifest().At(g.W).Name, "add_embedding.") {
			early++
		}
	}
	if early != 2 {
		t.Errorf("%d of the 2 linear layers of the addition are in the prologue", early)
	}
	for config, added := range map[string]bool{stableDiffusionXL: false, stableDiffusion15: true} {
		if tape, _ := record(config, added); tape.Err() == nil {
			t.Errorf("addition %v: accepted by %s", added, config)
		}
	}
	for _, bad := range []string{
		`{"addition_embed_type": "text_time"}`, `{"addition_embed_type": "text_time", "addition_time_embed_dim": 256}`,
		`{"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 1536}`,
		`{"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 1e12}`,
	} {
		if _, err := ParseConfig([]byte(bad)); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
}

// Each of these makes another network of UNet2DConditionModel, or none.
func TestConfigRefusals(t *testing.T) {
	for key, values := range map[string][]string{
		"_class_name":                          {`7`, `null`},
		"_diffusers_version":                   {`"latest"`, `6`, `null`},
		"_use_default_values":                  {`"sample_size"`, `null`},
		"act_fn":                               {`"gelu"`, `"mish"`},
		"addition_embed_type":                  {`"text_image"`, `1`},
		"attention_head_dim":                   {`0`, `null`, `[8, 8]`, `"8"`, `7`, `[8, 8, 8, 7]`},
		"attention_type":                       {`"gated"`},
		"block_out_channels":                   {`[]`, `[320, 640, 1280, 0]`, `[1, 2, 3, 4, 5, 6, 7, 8, 9]`, `[320, 640, 1280, 99999999]`, `320`},
		"center_input_sample":                  {`true`},
		"class_embed_type":                     {`"timestep"`},
		"class_embeddings_concat":              {`true`},
		"conv_in_kernel":                       {`2`, `9`},
		"conv_out_kernel":                      {`4`, `null`},
		"cross_attention_dim":                  {`[768, 768, 768, 1024]`, `-1`, `1e9`},
		"cross_attention_norm":                 {`"layer_norm"`},
		"down_block_types":                     {`["DownBlock2D"]`, `["AttnDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]`},
		"downsample_padding":                   {`2`},
		"dual_cross_attention":                 {`true`},
		"encoder_hid_dim":                      {`1024`},
		"encoder_hid_dim_type":                 {`"text_proj"`},
		"freq_shift":                           {`-1`, `"1"`},
		"in_channels":                          {`0`, `1.5`},
		"layers_per_block":                     {`0`, `100`, `[2, 2]`},
		"mid_block_only_cross_attention":       {`true`},
		"mid_block_scale_factor":               {`1.4142`},
		"mid_block_type":                       {`null`, `"UNetMidBlock2D"`, `"UNetMidBlock2DSimpleCrossAttn"`},
		"norm_eps":                             {`0`, `"1e-5"`},
		"norm_num_groups":                      {`null`, `0`, `33`},
		"num_attention_heads":                  {`8`},
		"num_class_embeds":                     {`1000`},
		"only_cross_attention":                 {`true`, `[true, true, true, false]`},
		"out_channels":                         {`0`},
		"resnet_out_scale_factor":              {`1.4`},
		"resnet_skip_time_act":                 {`true`},
		"resnet_time_scale_shift":              {`"scale_shift"`},
		"quantization_config":                  {`{"quant_method": "bitsandbytes"}`},
		"reverse_transformer_layers_per_block": {`[[1, 1, 1]]`},
		"sample_size":                          {`-1`, `[64, 64, 64]`},
		"time_cond_proj_dim":                   {`256`},
		"time_embedding_act_fn":                {`"silu"`},
		"time_embedding_dim":                   {`0`},
		"time_embedding_type":                  {`"fourier"`},
		"timestep_post_act":                    {`"silu"`},
		"transformer_layers_per_block":         {`0`, `1000`, `[[1, 1], 1, 1, 1]`},
		"up_block_types":                       {`[]`, `["SimpleCrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"]`},
		"flip_sin_to_cos":                      {`3`},
	} {
		for _, value := range values {
			raw := map[string]json.RawMessage{}
			if err := json.Unmarshal([]byte(stableDiffusion15), &raw); err != nil {
				t.Fatal(err)
			}
			changed := maps.Clone(raw)
			changed[key] = json.RawMessage(value)
			data, _ := json.Marshal(changed)
			_, err := ParseConfig(data)
			var all config.Errors
			if !errors.As(err, &all) {
				t.Errorf("%s = %s: error %v, want config.Errors", key, value, err)
				continue
			}
			named := false
			for _, e := range all {
				named = named || e.Key == key
			}
			if !named {
				t.Errorf("%s = %s: %v does not name the key", key, value, err)
			}
		}
	}
}

// FuzzUNetConfig: any bytes either parse to a network of bounded size that records, or give
// config.Errors.
func FuzzUNetConfig(f *testing.F) {
	for _, seed := range []string{stableDiffusion15, stableDiffusion21, stableDiffusionXL, `{}`, `[]`, `{"block_out_channels": [4], "norm_num_groups": 1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := ParseConfig(data)
		if err != nil {
			var all config.Errors
			if !errors.As(err, &all) || len(all) == 0 {
				t.Fatalf("error %v is not config.Errors", err)
			}
			return
		}
		s := nn.NewScope(agreeable{})
		m := New(s, cfg)
		if n := len(s.Manifest().Params); n > 200000 {
			t.Fatalf("%d parameters", n)
		}
		tape := device.NewTape(s.Manifest())
		size := cfg.SizeMultiple()
		in := Inputs{
			Latents: tape.Input("latents", 1, size, size, cfg.InChannels), Time: tape.Input("time", 1, len(cfg.TimeInput(1))),
			Context: tape.Input("context", 1, 2, cfg.ContextDim),
		}
		if cfg.AdditionDim > 0 {
			in.Addition = tape.Input("addition", 1, cfg.AdditionDim)
		}
		m.Forward(tape, in)
		if err := tape.Err(); err != nil {
			t.Fatalf("accepted, but: %v", err)
		}
	})
}
