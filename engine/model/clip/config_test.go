package clip

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

// The settings of the published encoders: CLIP ViT-L/14 (Stable Diffusion 1.x) and the first 23
// layers of OpenCLIP ViT-H/14 (2.x).
const (
	clipL = `{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "hidden_act": "quick_gelu", "model_type": "clip_text_model", "eos_token_id": 2}`
	clipH = `{"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23, "hidden_act": "gelu", "projection_dim": 512}`
)

// agreeable has every tensor, scalar, but only under names with the given prefix.
type agreeable struct{ prefix string }

func (a agreeable) Info(name string) (tensor.DType, tensor.Shape, bool) {
	return tensor.F16, nil, len(name) >= len(a.prefix) && name[:len(a.prefix)] == a.prefix
}
func (agreeable) TypeName(string) string { return "" }
func (agreeable) Where(string) string    { return "model.safetensors" }
func (agreeable) Names() []string        { return nil }

// 123,060,480 is the published count of CLIP-L's text half. For 2.x the sum is done by hand: two
// tables, 23 layers, the final norm.
func TestParameterCounts(t *testing.T) {
	const d, layers = 1024, 23
	h := 49408*d + 77*d + layers*(4*(d*d+d)+2*4*d*d+4*d+d+4*d) + 2*d
	for name, c := range map[string]struct {
		config string
		want   int
	}{"CLIP-L": {clipL, 123060480}, "OpenCLIP-H": {clipH, h}} {
		cfg, err := ParseConfig([]byte(c.config))
		if err != nil {
			t.Fatal(err)
		}
		s := nn.NewScope(agreeable{})
		New(s, cfg)
		got := 0
		for _, p := range s.Manifest().Params {
			n, _ := p.Shape.Elems()
			got += n
		}
		if got != c.want {
			t.Errorf("%s: %d parameters, want %d", name, got, c.want)
		}
	}
}

func TestNamesWithAndWithoutPrefix(t *testing.T) {
	cfg, err := ParseConfig([]byte(clipL))
	if err != nil {
		t.Fatal(err)
	}
	s := nn.NewScope(agreeable{prefix: "text_model."})
	New(s, cfg)
	if got, want := s.Manifest().Params[0].Name, "text_model.embeddings.token_embedding.weight"; got != want {
		t.Errorf("first tensor %q, want %q", got, want)
	}
	s = nn.NewScope(agreeable{prefix: "embeddings."})
	New(s, cfg)
	if got, want := s.Manifest().Params[0].Name, "embeddings.token_embedding.weight"; got != want {
		t.Errorf("first tensor %q, want %q", got, want)
	}
	for name, want := range map[string]bool{
		"text_model.embeddings.position_ids": true, "embeddings.position_ids": true, "text_projection.weight": true,
		"embeddings.position_embedding.weight": false, "logit_scale": false,
	} {
		if Ignore(name) != want {
			t.Errorf("Ignore(%q) = %v, want %v", name, !want, want)
		}
	}
}

func TestForwardRecords(t *testing.T) {
	for _, data := range []string{clipL, clipH} {
		cfg, err := ParseConfig([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		s := nn.NewScope(agreeable{})
		m := New(s, cfg)
		tape := device.NewTape(s.Manifest())
		out := m.Forward(tape, tape.IDs("ids", 2, 77))
		if err := tape.Err(); err != nil {
			t.Fatal(err)
		}
		if want := (tensor.Shape{2, 77, cfg.HiddenSize}); !out.Shape.Equal(want) {
			t.Errorf("states %v, want %v", out.Shape, want)
		}
		tape = device.NewTape(s.Manifest())
		if m.Forward(tape, tape.IDs("ids", 1, 78)); tape.Err() == nil {
			t.Error("78 tokens were accepted by an encoder of 77 positions")
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	for key, values := range map[string][]string{
		"hidden_act":              {`"gelu_new"`, `"relu"`, `null`},
		"hidden_size":             {`0`, `1e9`, `"768"`},
		"intermediate_size":       {`-1`},
		"layer_norm_eps":          {`0`, `null`},
		"max_position_embeddings": {`0`, `1e6`},
		"num_attention_heads":     {`0`, `7`},
		"num_hidden_layers":       {`0`, `1000`},
		"per_layer_config":        {`{"0": {"hidden_act": "gelu"}}`},
		"quantization_config":     {`{"quant_method": "bitsandbytes"}`},
		"text_config":             {`null`, `[]`, `7`},
		"use_attention_mask":      {`true`},
		"vocab_size":              {`0`, `1e12`},
	} {
		for _, value := range values {
			raw := map[string]json.RawMessage{}
			if err := json.Unmarshal([]byte(clipL), &raw); err != nil {
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

// The text half of a whole CLIP's config is taken, and nothing else of it.
func TestWholeCLIP(t *testing.T) {
	whole, err := ParseConfig([]byte(`{"model_type": "clip", "hidden_size": 7, "projection_dim": 768, "vision_config": {}, "text_config": ` + clipL + `}`))
	if err != nil {
		t.Fatal(err)
	}
	if half, err := ParseConfig([]byte(clipL)); err != nil || whole != half {
		t.Errorf("%+v, want %+v, %v", whole, half, err)
	}
	if _, err := ParseConfig([]byte(`{"text_config": {"hidden_act": "relu"}}`)); err == nil || !strings.Contains(err.Error(), "hidden_act") {
		t.Errorf("hidden_act of the text half: %v", err)
	}
}

// FuzzCLIPConfig: any bytes either parse to a network of bounded size that records, or give
// config.Errors.
func FuzzCLIPConfig(f *testing.F) {
	for _, seed := range []string{clipL, clipH, `{}`, `null`, `{"hidden_size": 1, "num_attention_heads": 1}`} {
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
		if n := len(s.Manifest().Params); n > 2000 {
			t.Fatalf("%d parameters", n)
		}
		tape := device.NewTape(s.Manifest())
		m.Forward(tape, tape.IDs("ids", 1, 1))
		if err := tape.Err(); err != nil {
			t.Fatalf("accepted, but: %v", err)
		}
	})
}

// The pooled state is at the first end of a text, of old configs at the largest id, whatever number their end has.
func TestPooled(t *testing.T) {
	for _, c := range []struct {
		eos, want int
		ids       []int32
	}{{2, 3, []int32{10, 2, 5, 49407, 49407}}, {49407, 2, []int32{10, 5, 49407, 49408, 49407}}, {7, 0, []int32{1, 2, 3}}, {2, 0, []int32{0}}} {
		if got := (Config{EOS: c.eos}).Pooled(c.ids); got != c.want {
			t.Errorf("end %d in %v: %d, want %d", c.eos, c.ids, got, c.want)
		}
	}
}
