package vae

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// The settings of the autoencoder of Stable Diffusion 1.x and 2.x.
const stableDiffusion = `{"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 512,
	"down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
	"up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}`

// agreeable has every tensor, scalar, except those of the deprecated attention block.
type agreeable struct{ deprecated bool }

func (a agreeable) Info(name string) (tensor.DType, tensor.Shape, bool) {
	const query = "attentions.0.query.weight"
	isQuery := len(name) > len(query) && name[len(name)-len(query):] == query
	return tensor.F32, nil, a.deprecated || !isQuery
}
func (agreeable) TypeName(string) string { return "" }
func (agreeable) Where(string) string    { return "diffusion_pytorch_model.safetensors" }
func (agreeable) Names() []string        { return nil }

func mustParse(t *testing.T, data string) Config {
	t.Helper()
	c, err := ParseConfig([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Published counts: 83,653,863 in all, 34,163,592 of them the encoder without its quant_conv (72)
// and 49,490,179 the decoder without its post_quant_conv (20).
func TestParameterCounts(t *testing.T) {
	cfg := mustParse(t, stableDiffusion)
	count := func(m *device.Manifest) (n int) {
		for _, p := range m.Params {
			k, _ := p.Shape.Elems()
			n += k
		}
		return n
	}
	dec, enc := nn.NewScope(agreeable{}), nn.NewScope(agreeable{})
	NewDecoder(dec, cfg)
	NewEncoder(enc, cfg)
	d, e := count(dec.Manifest()), count(enc.Manifest())
	if d != 49490179+20 || e != 34163592+72 || d+e != 83653863 {
		t.Errorf("decoder %d, encoder %d, sum %d parameters", d, e, d+e)
	}
}

func TestAttentionNames(t *testing.T) {
	cfg := mustParse(t, stableDiffusion)
	for deprecated, want := range map[bool]string{false: "to_out.0", true: "proj_attn"} {
		s := nn.NewScope(agreeable{deprecated})
		NewDecoder(s, cfg)
		found := false
		for _, p := range s.Manifest().Params {
			found = found || p.Name == "decoder.mid_block.attentions.0."+want+".weight"
		}
		if !found {
			t.Errorf("deprecated %v: no %s declared", deprecated, want)
		}
	}
}

func TestForwardRecords(t *testing.T) {
	for _, data := range []string{
		stableDiffusion,
		`{"block_out_channels": [32], "latent_channels": 16, "use_quant_conv": false, "use_post_quant_conv": false, "mid_block_add_attention": false}`,
	} {
		cfg := mustParse(t, data)
		dec, enc := nn.NewScope(agreeable{}), nn.NewScope(agreeable{})
		d, e := NewDecoder(dec, cfg), NewEncoder(enc, cfg)
		f := cfg.Factor()
		tape := device.NewTape(dec.Manifest())
		image := d.Forward(tape, tape.Input("z", 1, 6, 5, cfg.LatentChannels))
		if want := (tensor.Shape{1, 6 * f, 5 * f, 3}); tape.Err() != nil || !image.Shape.Equal(want) {
			t.Errorf("decoder: %v, want %v (%v)", image.Shape, want, tape.Err())
		}
		tape = device.NewTape(enc.Manifest())
		moments := e.Forward(tape, tape.Input("image", 1, 6*f, 5*f, 3))
		if want := (tensor.Shape{1, 6, 5, 2 * cfg.LatentChannels}); tape.Err() != nil || !moments.Shape.Equal(want) {
			t.Errorf("encoder: %v, want %v (%v)", moments.Shape, want, tape.Err())
		}
	}
}

func TestEncoderRefusesSizes(t *testing.T) {
	s := nn.NewScope(agreeable{})
	e := NewEncoder(s, mustParse(t, stableDiffusion))
	tape := device.NewTape(s.Manifest())
	e.Forward(tape, tape.Input("image", 1, 64, 60, 3))
	var size *SizeError
	if !errors.As(tape.Err(), &size) || size.Width != 60 || size.Multiple != 8 {
		t.Errorf("64x60: %v, want a SizeError with multiple 8", tape.Err())
	}
}

func TestConfigRefusals(t *testing.T) {
	for key, values := range map[string][]string{
		"_class_name":             {`null`, `1`},
		"act_fn":                  {`"relu"`},
		"block_out_channels":      {`[]`, `[0, 256, 512, 512]`, `[128, 256, 512, 1e9]`, `128`},
		"down_block_types":        {`["DownEncoderBlock2D"]`, `["AttnDownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"]`},
		"in_channels":             {`4`},
		"latent_channels":         {`0`, `1e6`},
		"layers_per_block":        {`0`, `[2, 2, 2, 2]`, `1000`},
		"mid_block_add_attention": {`"no"`},
		"norm_num_groups":         {`33`, `null`},
		"out_channels":            {`1`},
		"quantization_config":     {`{"quant_method": "bitsandbytes"}`},
		"sample_size":             {`"big"`},
		"scaling_factor":          {`0`, `null`, `-1`},
		"up_block_types":          {`[]`, `["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "AttnUpDecoderBlock2D"]`},
		"use_post_quant_conv":     {`1`},
		"use_quant_conv":          {`"yes"`},
	} {
		for _, value := range values {
			raw := map[string]json.RawMessage{}
			if err := json.Unmarshal([]byte(stableDiffusion), &raw); err != nil {
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

func TestLatents(t *testing.T) {
	c := Config{LatentChannels: 2, ScalingFactor: 0.5}
	// Two pixels of two means and two logarithms of variances; the last two are out of range.
	moments := []float32{1, 2, 0, float32(2 * math.Log(3)), 5, 6, -1000, 1000}
	noise := []float32{10, 100, 1, 1}
	std := float32(math.Exp(0.5 * maxLogVar))
	want := []float32{11, 302, 5 + float32(math.Exp(0.5*minLogVar)), 6 + std}
	for i, v := range c.Sample(moments, noise) {
		if math.Abs(float64(v-want[i])) > 1e-5*math.Abs(float64(want[i])) { // a few float32 roundings
			t.Errorf("sample[%d] = %v, want %v", i, v, want[i])
		}
	}
	mean := c.Sample(moments, nil)
	if mean[0] != 1 || mean[3] != 6 {
		t.Errorf("mean = %v", mean)
	}
	c.Scale(mean)
	if mean[3] != 3 {
		t.Errorf("scaled %v", mean)
	}
	c.Unscale(mean)
	if mean[3] != 6 || mean[0] != 1 {
		t.Errorf("unscaled %v", mean)
	}
}

// FuzzVAEConfig: any bytes either parse to networks of bounded size that record, or give
// config.Errors.
func FuzzVAEConfig(f *testing.F) {
	for _, seed := range []string{stableDiffusion, `{}`, `"x"`, `{"block_out_channels": [1], "norm_num_groups": 1}`} {
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
		dec, enc := nn.NewScope(agreeable{}), nn.NewScope(agreeable{})
		d, e := NewDecoder(dec, cfg), NewEncoder(enc, cfg)
		if n := len(dec.Manifest().Params) + len(enc.Manifest().Params); n > 5000 {
			t.Fatalf("%d parameters", n)
		}
		tape := device.NewTape(dec.Manifest())
		d.Forward(tape, tape.Input("z", 1, 1, 1, cfg.LatentChannels))
		if err := tape.Err(); err != nil {
			t.Fatalf("decoder accepted, but: %v", err)
		}
		tape = device.NewTape(enc.Manifest())
		e.Forward(tape, tape.Input("image", 1, cfg.Factor(), cfg.Factor(), 3))
		if err := tape.Err(); err != nil {
			t.Fatalf("encoder accepted, but: %v", err)
		}
	})
}

// Mean and deviation of latents are there for each channel or not at all, and scaling by them is undone.
func TestLatentMoments(t *testing.T) {
	const head = `{"latent_channels": 2, "scaling_factor": 0.5, `
	c, err := ParseConfig([]byte(head + `"block_out_channels": [32], "latents_mean": [1, -2], "latents_std": [4, 0.5]}`))
	if err != nil {
		t.Fatal(err)
	}
	z := []float32{9, -1, 1, -2}
	c.Scale(z)
	if want := []float32{1, 1, 0, 0}; !slices.Equal(z, want) {
		t.Errorf("scaled to %v, want %v", z, want)
	}
	if c.Unscale(z); !slices.Equal(z, []float32{9, -1, 1, -2}) {
		t.Errorf("unscaled to %v", z)
	}
	for _, one := range []string{`"latents_mean": [1, 2]`, `"latents_std": [1, 2], "latents_mean": null`} {
		if c, err := ParseConfig([]byte(head + `"block_out_channels": [32], ` + one + `}`)); err != nil || c.Mean != nil || c.Std != nil {
			t.Errorf("%s: %v and %v, %v", one, c.Mean, c.Std, err)
		}
	}
	for _, wrong := range []string{`"latents_mean": [1]`, `"latents_std": [1, 0]`, `"latents_std": [1, -1]`, `"latents_mean": [1e9, 0]`, `"latents_mean": "x"`} {
		if _, err := ParseConfig([]byte(head + `"block_out_channels": [32], ` + wrong + `}`)); err == nil || !strings.Contains(err.Error(), "null or 2 numbers") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
