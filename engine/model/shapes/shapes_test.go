package shapes

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// The settings of the published networks that differ from the defaults: T5 v1.1 XXL and the transformers of
// FLUX.1-dev and FLUX.1-schnell.
const (
	t5XXL   = `{"model_type": "t5", "d_model": 4096, "d_ff": 10240, "num_heads": 64, "num_layers": 24, "feed_forward_proj": "gated-gelu"}`
	t5Small = `{"model_type": "t5", "d_model": 512, "d_ff": 2048, "num_heads": 8, "num_layers": 6, "feed_forward_proj": "relu"}`
	dev     = `{"_class_name": "FluxTransformer2DModel", "guidance_embeds": true}`
	schnell = `{"_class_name": "FluxTransformer2DModel", "guidance_embeds": false, "out_channels": null}`
)

// none is a file without tensors.
type none struct{}

func (none) Info(string) (tensor.DType, tensor.Shape, bool) { return tensor.F16, nil, false }
func (none) TypeName(string) string                         { return "" }
func (none) Where(string) string                            { return "none" }
func (none) Names() []string                                { return nil }

func declareT5(t *testing.T, data string) (T5, *device.Manifest) {
	t.Helper()
	c, err := ParseT5([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	s := nn.NewScope(none{})
	c.Declare(s)
	return c, s.Manifest()
}

func declareFlux(t *testing.T, data string) (Flux, *device.Manifest) {
	t.Helper()
	c, err := ParseFlux([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	s := nn.NewScope(none{})
	c.Declare(s)
	return c, s.Manifest()
}

func parameters(m *device.Manifest) (sum int64) {
	for _, p := range m.Params {
		n, _ := p.Shape.Elems()
		sum += int64(n)
	}
	return sum
}

// TestParameterCounts: the published counts of whole networks, and of the files' bytes at two for each.
func TestParameterCounts(t *testing.T) {
	_, xxl := declareT5(t, t5XXL)
	_, small := declareT5(t, t5Small)
	_, guided := declareFlux(t, dev)
	_, fast := declareFlux(t, schnell)
	for name, c := range map[string]struct {
		m    *device.Manifest
		want int64
	}{
		"T5 v1.1 XXL": {xxl, 4_762_310_656}, "T5 small": {small, 35_330_816},
		"FLUX.1-dev": {guided, 11_901_408_320}, "FLUX.1-schnell": {fast, 23_782_357_120 / 2},
	} {
		if got := parameters(c.m); got != c.want {
			t.Errorf("%s: %d parameters, want %d", name, got, c.want)
		}
	}
}

// The tensors in the published files of T5 v1.1 XXL's encoder and FLUX.1-schnell's transformer: {A,B} stands for each of its
// words, {N} for the numbers below N.
var (
	t5Tensors = []string{
		"shared.weight", "encoder.final_layer_norm.weight", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
		"encoder.block.{24}.layer.{2}.layer_norm.weight", "encoder.block.{24}.layer.0.SelfAttention.{q,k,v,o}.weight",
		"encoder.block.{24}.layer.1.DenseReluDense.{wi_0,wi_1,wo}.weight",
	}
	schnellTensors = []string{
		"{x_embedder,context_embedder,norm_out.linear,proj_out}.{weight,bias}",
		"time_text_embed.{timestep_embedder,text_embedder}.{linear_1,linear_2}.{weight,bias}",
		"transformer_blocks.{19}.{norm1,norm1_context}.linear.{weight,bias}",
		"transformer_blocks.{19}.attn.{to_q,to_k,to_v,to_out.0,add_q_proj,add_k_proj,add_v_proj,to_add_out}.{weight,bias}",
		"transformer_blocks.{19}.attn.{norm_q,norm_k,norm_added_q,norm_added_k}.weight",
		"transformer_blocks.{19}.{ff,ff_context}.net.{0.proj,2}.{weight,bias}",
		"single_transformer_blocks.{38}.{norm.linear,proj_mlp,proj_out,attn.to_q,attn.to_k,attn.to_v}.{weight,bias}",
		"single_transformer_blocks.{38}.attn.{norm_q,norm_k}.weight",
	}
)

// expand gives the names that a pattern stands for.
func expand(pattern string) (names []string) {
	before, rest, found := strings.Cut(pattern, "{")
	if !found {
		return []string{pattern}
	}
	choice, after, _ := strings.Cut(rest, "}")
	words := strings.Split(choice, ",")
	if n, err := strconv.Atoi(choice); err == nil {
		words = nil
		for i := range n {
			words = append(words, strconv.Itoa(i))
		}
	}
	for _, word := range words {
		names = append(names, expand(before+word+after)...)
	}
	return names
}

// TestPublishedTensors: names, their number and the bytes of all are those of the published indexes, at two for a value.
func TestPublishedTensors(t *testing.T) {
	_, xxl := declareT5(t, t5XXL)
	_, fast := declareFlux(t, schnell)
	for name, c := range map[string]struct {
		m        *device.Manifest
		patterns []string
		tensors  int
		bytes    int64
	}{
		"T5 v1.1 XXL":    {xxl, t5Tensors, 219, 9_524_621_312},
		"FLUX.1-schnell": {fast, schnellTensors, 1156, 23_782_357_120},
	} {
		var got, want []string
		for _, p := range c.m.Params {
			got = append(got, p.Name)
		}
		for _, p := range c.patterns {
			want = append(want, expand(p)...)
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); len(want) != c.tensors || diff != "" {
			t.Errorf("%s: %d tensors are published, %d are declared:\n%s", name, c.tensors, len(got), diff)
		}
		if got := 2 * parameters(c.m); got != c.bytes {
			t.Errorf("%s: %d bytes, published are %d", name, got, c.bytes)
		}
	}
}

// TestScratch does the sums of the doc comments by hand.
func TestScratch(t *testing.T) {
	xxl, _ := declareT5(t, t5XXL)
	if got, want := xxl.ScratchBytes(1, 512), int64(4*(512*(2*4096+2*10240)+64*512*512)); got != want {
		t.Errorf("T5: %d bytes, want %d", got, want)
	}
	flux, _ := declareFlux(t, dev)
	const tokens, image = 512, 64 * 64 // of 1024x1024 pixels
	if got, want := flux.ScratchBytes(1, 128, 128, tokens), int64(4*((tokens+image)*(9*3072+2*128)+tokens*4096+image*2*64)); got != want {
		t.Errorf("FLUX: %d bytes, want %d", got, want)
	}
	flux.Single = 0
	if got, want := flux.ScratchBytes(1, 128, 128, tokens), int64(4*((tokens+image)*(3072+2*128)+image*5*3072+tokens*4096+image*2*64)); got != want {
		t.Errorf("FLUX without single blocks: %d bytes, want %d", got, want)
	}
}

func TestConfigRefusals(t *testing.T) {
	refuse := func(base string, parse func([]byte) error, bad map[string][]string) {
		for key, values := range bad {
			for _, value := range values {
				raw := map[string]json.RawMessage{}
				if err := json.Unmarshal([]byte(base), &raw); err != nil {
					t.Fatal(err)
				}
				raw[key] = json.RawMessage(value)
				data, err := json.Marshal(raw)
				if err != nil {
					t.Fatal(err)
				}
				var all config.Errors
				if err := parse(data); !errors.As(err, &all) || !slices.ContainsFunc(all, func(e *config.Error) bool { return e.Key == key }) {
					t.Errorf("%s = %s: %v", key, value, err)
				}
			}
		}
	}
	refuse(t5XXL, func(b []byte) error { _, err := ParseT5(b); return err }, map[string][]string{
		"d_model": {`0`, `1e12`, `"4096"`, `null`}, "d_kv": {`-1`, `4096`}, "num_heads": {`0`, `2.5`}, "d_ff": {`1e9`}, "num_layers": {`0`, `100000`},
		"vocab_size": {`1e15`}, "feed_forward_proj": {`"gated-silu"`, `null`}, "model_type": {`"mt5"`}, "relative_attention_num_buckets": {`0`},
	})
	refuse(dev, func(b []byte) error { _, err := ParseFlux(b); return err }, map[string][]string{
		"_class_name": {`"SD3Transformer2DModel"`, `null`}, "patch_size": {`2`}, "in_channels": {`1`, `1e9`}, "out_channels": {`0`}, "num_attention_heads": {`0`},
		"attention_head_dim": {`0`, `1024`}, "num_layers": {`-1`, `1000`}, "num_single_layers": {`1e9`}, "joint_attention_dim": {`null`}, "pooled_projection_dim": {`""`},
	})
}

// FuzzShapesConfig: any bytes either parse to a network of bounded size, or give config.Errors.
func FuzzShapesConfig(f *testing.F) {
	for _, seed := range []string{t5XXL, t5Small, dev, schnell, `{}`, `null`, `{"num_layers": 128, "num_heads": 1024, "d_kv": 65536}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		check := func(err error, declare func(*nn.Scope), scratch func() int64) {
			var all config.Errors
			if err != nil {
				if !errors.As(err, &all) || len(all) == 0 {
					t.Errorf("error %v is not config.Errors", err)
				}
				return
			}
			s := nn.NewScope(none{})
			declare(s)
			if n := len(s.Manifest().Params); n > 10_000 {
				t.Errorf("%d parameters", n)
			}
			if parameters(s.Manifest()) <= 0 || scratch() <= 0 {
				t.Errorf("%d parameters, %d bytes of scratch", parameters(s.Manifest()), scratch())
			}
		}
		text, err := ParseT5(data)
		check(err, text.Declare, func() int64 { return text.ScratchBytes(16, 4096) })
		flux, err := ParseFlux(data)
		check(err, flux.Declare, func() int64 { return flux.ScratchBytes(16, 1024, 1024, 4096) })
	})
}
