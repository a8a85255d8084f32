package clip

import (
	"errors"
	"testing"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// anything has every tensor, scalar.
type anything struct{}

func (anything) Info(string) (tensor.DType, tensor.Shape, bool) { return tensor.F16, nil, true }
func (anything) TypeName(string) string                         { return "" }
func (anything) Where(string) string                            { return "model.safetensors" }
func (anything) Names() []string                                { return nil }

// Published parameter counts of the image encoders beside IP-Adapters: 632,076,800 of ViT-H-14, 1,844,907,264 of ViT-bigG-14.
func TestVisionParameterCounts(t *testing.T) {
	for data, want := range map[string]int{
		`{"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16, "patch_size": 14, "projection_dim": 1024, "hidden_act": "gelu"}`:                    632076800,
		`{"vision_config": {"hidden_size": 1664, "intermediate_size": 8192, "num_hidden_layers": 48, "num_attention_heads": 16, "patch_size": 14, "projection_dim": 1280, "hidden_act": "gelu"}}`: 1844907264,
	} {
		c, err := ParseVisionConfig([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		s, got := nn.NewScope(anything{}), 0
		NewVision(s, c)
		for _, p := range s.Manifest().Params {
			n, _ := p.Shape.Elems()
			got += n
		}
		if got != want || c.Patches() != 256 {
			t.Errorf("%s: %d parameters, want %d; %d patches", data, got, want, c.Patches())
		}
	}
}

func TestVisionConfigRefusals(t *testing.T) {
	for data, key := range map[string]string{
		`{"num_channels": 4}`: "num_channels", `{"patch_size": 300}`: "patch_size", `{"image_size": 2048, "patch_size": 1}`: "patch_size",
		`{"num_attention_heads": 5}`: "num_attention_heads", `{"hidden_act": "relu"}`: "hidden_act",
	} {
		_, err := ParseVisionConfig([]byte(data))
		var all config.Errors
		if !errors.As(err, &all) || all[0].Key != key {
			t.Errorf("%s: %v, want %s", data, err, key)
		}
	}
}

func TestPreprocessing(t *testing.T) {
	p, err := ParsePreprocessing([]byte(`{}`), 224)
	if err != nil || p.Mean[0] != 0.48145466 || p.Std[2] != 0.27577711 {
		t.Errorf("%+v, %v", p, err)
	}
	p, err = ParsePreprocessing([]byte(`{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 1], "size": 224, "crop_size": {"height": 224, "width": 224}, "resample": 3}`), 224)
	if err != nil || p.Mean != [3]float32{0.5, 0.5, 0.5} || p.Std != [3]float32{0.5, 0.5, 1} {
		t.Errorf("%+v, %v", p, err)
	}
	for data, key := range map[string]string{
		`{"image_std": [1, 0, 1]}`: "image_std", `{"image_mean": [1, 2]}`: "image_mean", `{"size": {"shortest_edge": 336}}`: "size", `{"size": {"height": 224}}`: "size",
		`{"crop_size": 200}`: "crop_size", `{"resample": 2}`: "resample", `{"do_center_crop": false}`: "do_center_crop", `{"size": "large"}`: "size",
	} {
		_, err := ParsePreprocessing([]byte(data), 224)
		var all config.Errors
		if !errors.As(err, &all) || all[0].Key != key {
			t.Errorf("%s: %v, want %s", data, err, key)
		}
	}
}

// Whatever an image encoder's configs say, they are errors by key, or in bounds.
func FuzzVisionConfig(f *testing.F) {
	f.Add([]byte(`{"hidden_size": 32, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}`))
	f.Add([]byte(`{"vision_config": {"image_size": 1e9}, "size": {"shortest_edge": 1}, "image_std": [1e-9, 1, 1]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var all config.Errors
		if c, err := ParseVisionConfig(data); err == nil {
			if n := c.Patches(); n < 1 || n > maxPositions || c.HiddenSize%c.Heads != 0 {
				t.Fatalf("%+v", c)
			}
		} else if !errors.As(err, &all) {
			t.Fatal(err)
		}
		if p, err := ParsePreprocessing(data, 224); err == nil {
			for _, s := range p.Std {
				if !(s > 0) {
					t.Fatalf("%+v", p)
				}
			}
		} else if !errors.As(err, &all) {
			t.Fatal(err)
		}
	})
}
