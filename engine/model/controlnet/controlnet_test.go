package controlnet

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// The settings of published nets that differ from diffusers' defaults.
const (
	canny15 = `{"_class_name": "ControlNetModel", "cross_attention_dim": 768, "attention_head_dim": 8, "global_pool_conditions": false}`
	cannyXL = `{"_class_name": "ControlNetModel", "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20], "cross_attention_dim": 2048,
		"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "transformer_layers_per_block": [1, 2, 10],
		"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816, "use_linear_projection": true}`
)

// stored are tensors by their names.
type stored map[string]tensor.Shape

func (s stored) Info(name string) (tensor.DType, tensor.Shape, bool) {
	shape, ok := s[name]
	return tensor.F16, shape, ok
}
func (s stored) TypeName(string) string { return "F16" }
func (s stored) Where(string) string    { return "control.safetensors" }
func (s stored) Names() []string        { return slices.Sorted(maps.Keys(s)) }

// tensors are those of a net.
func tensors(t *testing.T, data string) (stored, Config) {
	t.Helper()
	c, err := ParseConfig([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	s := nn.NewScope(stored{})
	New(s, c)
	out := stored{}
	for _, p := range s.Manifest().Params {
		out[p.Name] = p.Shape
	}
	return out, c
}

// Published parameter counts: 361,279,120 for Stable Diffusion 1.5, 1,251,014,160 for XL.
func TestParameterCounts(t *testing.T) {
	for data, want := range map[string]int{canny15: 361279120, cannyXL: 1251014160} {
		in, _ := tensors(t, data)
		got := 0
		for _, shape := range in {
			n, _ := shape.Elems()
			got += n
		}
		if got != want {
			t.Errorf("%d parameters, want %d", got, want)
		}
	}
}

// An inferred config is that of the file, beside the U-Net it is for.
func TestInferAsPublished(t *testing.T) {
	for _, data := range []string{canny15, cannyXL} {
		in, want := tensors(t, data)
		got, err := Infer(in)
		if err != nil {
			t.Fatal(err)
		}
		base := want.Trunk
		got = got.For(base)
		got.Inferred = false
		a, b := nn.NewScope(in), nn.NewScope(in)
		New(a, got)
		New(b, want)
		if _, err := a.Finish(nil); err != nil || len(a.Manifest().Params) != len(b.Manifest().Params) {
			t.Errorf("%v, %d parameters, want %d", err, len(a.Manifest().Params), len(b.Manifest().Params))
		}
		if why := got.Fits(base); why != "" || got.Factor() != 8 {
			t.Errorf("%q, factor %d", why, got.Factor())
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	for key, data := range map[string]string{
		"mid_block_type": `{"mid_block_type": "UNetMidBlock2D"}`, "conditioning_channels": `{"conditioning_channels": 4}`,
		"controlnet_conditioning_channel_order": `{"controlnet_conditioning_channel_order": "gbr"}`,
		"conditioning_embedding_out_channels":   `{"conditioning_embedding_out_channels": []}`, "class_embed_type": `{"class_embed_type": "timestep"}`,
	} {
		_, err := ParseConfig([]byte(data))
		var all config.Errors
		if !errors.As(err, &all) || all[0].Key != key {
			t.Errorf("%s: %v", data, err)
		}
	}
	if got := UnknownKeys([]byte(`{"act_fn": "silu", "controlnet_strength": 1, "upcast_attention": true, "use_linear_projection": true, "addition_embed_type_num_heads": 64}`)); !slices.Equal(got, []string{"controlnet_strength"}) {
		t.Errorf("unknown keys %v", got)
	}
}

// Whatever names and shapes a file has, they are no ControlNet, one that is refused, or one that is declared in bounds and recorded.
func FuzzInfer(f *testing.F) {
	f.Add("controlnet_cond_embedding.conv_in.weight controlnet_cond_embedding.conv_out.weight conv_in.weight time_embedding.linear_1.weight down_blocks.0.resnets.0.conv1.weight", byte(8))
	f.Add("control_model.input_hint_block.0.weight control_model.input_blocks.1.0.in_layers.2.weight control_model.zero_convs.0.0.weight control_model.input_blocks.2.0.op.weight", byte(16))
	f.Add("state_dict.state_dict.control_model.input_hint_block.-1.weight difference", byte(1))
	f.Fuzz(func(t *testing.T, text string, side byte) {
		names := strings.Fields(text)
		at, ok, err := Locate(names)
		if err != nil {
			if e := new(Error); !ok || !errors.As(err, &e) || e.Got == "" {
				t.Fatalf("%v, %v", ok, err)
			}
			return
		}
		in := stored{}
		for own := range at {
			in[own] = tensor.Shape{int(side), int(side), 3, 3}
		}
		c, err := Infer(in)
		if err != nil {
			return
		}
		s := nn.NewScope(in)
		m := New(s, c)
		if n := len(s.Manifest().Params); n > 20000 {
			t.Fatalf("%d parameters", n)
		}
		tape := device.NewTape(s.Manifest())
		m.Hint(tape, tape.Input("picture", 1, 256, 256, c.ImageChannels))
		inputs := unet.Inputs{
			Latents: tape.Input("latents", 1, 8, 8, c.Trunk.InChannels), Time: tape.Input("time", 1, c.Trunk.Channels[0]), Context: tape.Input("context", 1, 2, c.Trunk.ContextDim),
		}
		if c.Trunk.AdditionDim > 0 {
			inputs.Addition = tape.Input("addition", 1, c.Trunk.AdditionDim)
		}
		m.Forward(tape, inputs, device.Array{})
		if tape.Err() != nil {
			t.Fatal(tape.Err())
		}
	})
}
