package lora

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/original"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// memory is a source of F32 tensors.
type memory map[string]tensor.Tensor

func (m memory) Info(name string) (tensor.DType, tensor.Shape, bool) {
	t, ok := m[name]
	return t.DType, t.Shape, ok
}
func (m memory) TypeName(name string) string               { return m[name].DType.String() }
func (m memory) Where(string) string                       { return "memory" }
func (m memory) Names() []string                           { return slices.Sorted(maps.Keys(m)) }
func (m memory) Data(name string) ([]byte, error)          { return m[name].Data, nil }
func (m memory) Complete() bool                            { return true }
func (m memory) put(name string, shape ...int)             { m[name] = numbers(len(m), shape...) }
func (m memory) Section(string) (*io.SectionReader, error) { return nil, errors.New("not needed") }

// numbers are some of a shape.
func numbers(seed int, shape ...int) tensor.Tensor {
	n, _ := tensor.Shape(shape).Elems()
	v := make([]float32, n)
	for i := range v {
		v[i] = float32((i*7+seed*5)%11) - 5
	}
	return tensor.FromF32(v, shape...)
}

// TestKey: a layer is the same however its name is written, and its part is told by its prefix.
func TestKey(t *testing.T) {
	for name, want := range map[string]string{
		"lora_unet_mid_block_attentions_0_proj_in.alpha":                                    "unet mid_block_attentions_0_proj_in",
		"unet.mid_block.attentions.0.proj_in.lora_A.weight":                                 "unet mid_block_attentions_0_proj_in",
		"base_model.model.mid_block.attentions.0.proj_in.lora_B.default.weight":             "unet mid_block_attentions_0_proj_in",
		"mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight": "unet mid_block_attentions_0_transformer_blocks_0_attn1_to_out",
		"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight":                      "text_encoder encoder_layers_0_mlp_fc1",
		"text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.down.weight":    "text_encoder encoder_layers_0_mlp_fc1",
		"clip_g.text_model.encoder.layers.0.mlp.fc1.lora_up.weight":                         "text_encoder_2 encoder_layers_0_mlp_fc1",
		"lora_te2_text_projection.hada_w1_a":                                                "text_encoder_2 text_projection",
		"diffusion_model.middle_block.1.proj_in.diff_b":                                     "unet middle_block_1_proj_in",
	} {
		end, r := ending(name)
		part, layer := split(strings.TrimSuffix(name, end), "")
		if got := fmt.Sprint(part, " ", Key(layer)); got != want || r == 0 {
			t.Errorf("%s: %s (role %d), want %s", name, got, r, want)
		}
	}
	if part, _ := split("text_model.encoder", TextEncoder2); part != TextEncoder2 {
		t.Errorf("a file that is of one part alone: %s", part)
	}
}

// TestMade: what is made of factors is what they define, read from anywhere.
func TestMade(t *testing.T) {
	at := func(m memory, name string) []float32 {
		v, err := m["l."+name].Float32s()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	const out, in, r = 6, 4, 2
	loha := memory{}
	for _, f := range []string{"hada_w1", "hada_w2"} {
		loha.put("l."+f+"_a", out, r)
		loha.put("l."+f+"_b", r, in)
	}
	product := func(a, b []float32, o, n, in int) (sum float32) {
		for k := range r {
			sum += a[o*r+k] * b[k*in+n]
		}
		return sum
	}
	lokr := memory{}
	lokr.put("l.lokr_w1", 3, 2)
	lokr.put("l.lokr_w2_a", 2, r)
	lokr.put("l.lokr_w2_b", r, 2)
	tucker := memory{}
	for _, f := range []string{"hada_w1", "hada_w2"} {
		tucker.put("l."+f+"_a", r, out)
		tucker.put("l."+f+"_b", r, in)
	}
	tucker.put("l.hada_t1", r, r, 3, 3)
	tucker.put("l.hada_t2", r, r, 3, 3)
	core := func(t, a, b []float32, o, n, tap int) (sum float32) {
		for i := range r {
			for j := range r {
				sum += t[(i*r+j)*9+tap] * a[i*out+o] * b[j*in+n]
			}
		}
		return sum
	}
	for name, c := range map[string]struct {
		m    memory
		taps int
		want func(o, n, tap int) float32
	}{
		"LoHa": {loha, 1, func(o, n, _ int) float32 {
			return product(at(loha, "hada_w1_a"), at(loha, "hada_w1_b"), o, n, in) * product(at(loha, "hada_w2_a"), at(loha, "hada_w2_b"), o, n, in)
		}},
		"LoKr": {lokr, 1, func(o, n, _ int) float32 {
			return at(lokr, "lokr_w1")[o/2*2+n/2] * product(at(lokr, "lokr_w2_a"), at(lokr, "lokr_w2_b"), o%2, n%2, 2)
		}},
		"LoHa with cores": {tucker, 9, func(o, n, tap int) float32 {
			return core(at(tucker, "hada_t1"), at(tucker, "hada_w1_a"), at(tucker, "hada_w1_b"), o, n, tap) * core(at(tucker, "hada_t2"), at(tucker, "hada_w2_a"), at(tucker, "hada_w2_b"), o, n, tap)
		}},
	} {
		f, err := Read(c.m, "", nil)
		if err != nil {
			t.Fatal(name, err)
		}
		layer := f.Parts[UNet][0]
		w := NewWeights(c.m, f.Parts[UNet])
		section, err := w.Section(layer.made.name)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, section.Size())
		for from := len(data); from > 0; { // backwards, in pieces that end anywhere
			piece := min(from, 13)
			from -= piece
			if _, err := section.ReadAt(data[from:][:piece], int64(from)); err != nil {
				t.Fatal(err)
			}
		}
		d, shape, _ := w.Info(layer.made.name)
		got, err := tensor.Tensor{DType: d, Shape: shape, Data: data}.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range got {
			if want := c.want(i/c.taps/in, i/c.taps%in, i%c.taps); math.Abs(float64(v-want)) > 1e-4*math.Abs(float64(want)) {
				t.Fatalf("%s: value %d is %g, want %g", name, i, v, want)
			}
		}
	}
}

// TestRefusals: what is inconsistent is refused by what is wrong, and nothing is allocated for what factors only claim.
func TestRefusals(t *testing.T) {
	for tell, m := range map[string]memory{
		"at most 268435456 values":     {"l.lokr_w1": tensor.Tensor{DType: tensor.F32, Shape: tensor.Shape{1 << 20, 1 << 20}}, "l.lokr_w2": tensor.Tensor{DType: tensor.F32, Shape: tensor.Shape{1 << 20, 1 << 20}}},
		"an up beside it":              {"l.lora_down.weight": numbers(0, 2, 3)},
		"[out, 2], the rank":           {"l.lora_down.weight": numbers(0, 2, 3), "l.lora_up.weight": numbers(0, 4, 3)},
		"the rank of what is beside":   {"l.lora_down.weight": numbers(0, 2, 3), "l.lora_up.weight": numbers(0, 4, 2), "l.lora_mid.weight": numbers(0, 2, 3, 3, 3)},
		"one kind of difference":       {"l.lora_down.weight": numbers(0, 2, 3), "l.lora_up.weight": numbers(0, 4, 2), "l.diff": numbers(0, 4, 3)},
		"one such tensor of its layer": {"unet.l.lora_A.weight": numbers(0, 2, 3), "lora_unet_l.lora_down.weight": numbers(0, 2, 3)},
		"one number":                   {"l.lora_down.weight": numbers(0, 2, 3), "l.lora_up.weight": numbers(0, 4, 2), "l.alpha": numbers(0, 2)},
		"both the differences":         {"l.w_norm": numbers(0, 4)},
		"both factors":                 {"l.hada_w1_a": numbers(0, 4, 2), "l.hada_w1_b": numbers(0, 2, 4), "l.hada_w2_a": numbers(0, 4, 2)},
		"factors of one size":          {"l.hada_w1_a": numbers(0, 4, 2), "l.hada_w1_b": numbers(0, 2, 4), "l.hada_w2_a": numbers(0, 5, 2), "l.hada_w2_b": numbers(0, 2, 4)},
		"DoRA":                         {"l.lora_down.weight": numbers(0, 2, 3), "l.lora_up.weight": numbers(0, 4, 2), "l.dora_scale": numbers(0, 4, 1)},
		"a tensor of something else":   {"l.lora_down.weight": numbers(0, 2, 3), "l.lora_up.weight": numbers(0, 4, 2), "other": numbers(0, 4, 1)},
		"no tensors of one":            {},
	} {
		_, err := Read(m, "", nil)
		var wrong *Error
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), tell) {
			t.Errorf("%v, want an Error that tells %q", err, tell)
		}
	}
}

// TestFactors: alpha over the rank, from wherever it stands.
func TestFactors(t *testing.T) {
	pair := func(name string) memory {
		return memory{name + ".lora_down.weight": numbers(0, 4, 3), name + ".lora_up.weight": numbers(0, 5, 4)}
	}
	with := pair("a.b")
	with["a.b.alpha"] = tensor.FromF32([]float32{2}, 1)
	parse := func(text string) Alphas {
		c, err := ParseConfig([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return Alphas{UNet: c}
	}
	told, err := ParseMetadata(map[string]string{metadata: `{"unet.r": 4, "unet.lora_alpha": 6, "unet.alpha_pattern": {}}`})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		m    memory
		a    Alphas
		want float64
	}{
		{pair("a.b"), nil, 1},
		{with, parse(`{"lora_alpha": 8}`), 0.5},
		{pair("a.b"), parse(`{"lora_alpha": 8}`), 2},
		{pair("a.b"), parse(`{"lora_alpha": 8, "use_rslora": true}`), 4},
		{pair("a.b"), parse(`{"lora_alpha": 8, "alpha_pattern": {"b": 1}}`), 0.25},
		{pair("a.b"), parse(`{"lora_alpha": 8, "alpha_pattern": {"ab": 1, "a.b": 3}}`), 0.75},
		{pair("unet.a.b"), told, 1.5},
	} {
		f, err := Read(c.m, "", c.a)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Parts[UNet][0].Factor; got != c.want {
			t.Errorf("case %d: a factor of %g, want %g", i, got, c.want)
		}
	}
	for _, text := range []string{`{"use_dora": true}`, `[`, `{"alpha_pattern": 3}`} {
		if _, err := ParseConfig([]byte(text)); err == nil {
			t.Errorf("%s is read", text)
		}
	}
	if _, err := ParseMetadata(map[string]string{metadata: "x"}); err == nil {
		t.Error("broken metadata is read")
	}
}

// TestFit: layers are found by all of a network's names, and those for another network are refused.
func TestFit(t *testing.T) {
	m := &device.Manifest{}
	m.Add(device.Param{Name: "a.to_out.0.weight", Layout: device.Matrix, Shape: tensor.Shape{5, 3}})
	m.Add(device.Param{Name: "conv.weight", Layout: device.Filter, Shape: tensor.Shape{5, 3, 3, 3}})
	m.Add(device.Param{Name: "norm.weight", Layout: device.Vector, Shape: tensor.Shape{5}})
	m.Add(device.Param{Name: "norm.bias", Layout: device.Vector, Shape: tensor.Shape{5}})
	m.Add(device.Param{Name: "scale.weight", Layout: device.Vector, Shape: tensor.Shape{5}})
	m.Add(device.Param{Name: "tokens.weight", Layout: device.Table, Shape: tensor.Shape{5, 3}})
	table := NewTable(m, []original.Module{{Name: "conv", Original: "input.0.op"}})
	fit := func(tensors map[string][]int) error {
		src := memory{}
		for name, shape := range tensors {
			src.put(name, shape...)
		}
		f, err := Read(src, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		s := nn.NewScope(NewWeights(src, f.Parts[UNet]))
		Declare(s, f.Parts[UNet])
		if _, err := s.Finish(nil); err != nil {
			t.Fatal(err)
		}
		_, err = table.Fit(s.Manifest(), f.Parts[UNet])
		return err
	}
	for name, c := range map[string]struct {
		tensors map[string][]int
		fits    bool
	}{
		"linear":                {map[string][]int{"a.to_out.0.lora_down.weight": {2, 3}, "a.to_out.0.lora_up.weight": {5, 2}}, true},
		"by its old name":       {map[string][]int{"a.processor.to_out_lora.down.weight": {2, 3}, "a.processor.to_out_lora.up.weight": {5, 2}}, true},
		"a convolution's shape": {map[string][]int{"a.to_out.0.lora_down.weight": {2, 3, 1, 1}, "a.to_out.0.lora_up.weight": {5, 2, 1, 1}}, true},
		"wide":                  {map[string][]int{"a.to_out.0.lora_down.weight": {2, 4}, "a.to_out.0.lora_up.weight": {5, 2}}, false},
		"high":                  {map[string][]int{"a.to_out.0.lora_down.weight": {2, 3}, "a.to_out.0.lora_up.weight": {6, 2}}, false},
		"filters for a matrix":  {map[string][]int{"a.to_out.0.lora_down.weight": {2, 3, 3, 3}, "a.to_out.0.lora_up.weight": {5, 2}}, false},
		"convolution":           {map[string][]int{"lora_unet_input_0_op.lora_down.weight": {2, 3, 3, 3}, "lora_unet_input_0_op.lora_up.weight": {5, 2, 1, 1}}, true},
		"mid":                   {map[string][]int{"conv.lora_down.weight": {2, 3}, "conv.lora_mid.weight": {4, 2, 3, 3}, "conv.lora_up.weight": {5, 4}}, true},
		"filters twice":         {map[string][]int{"conv.lora_down.weight": {2, 3, 3, 3}, "conv.lora_mid.weight": {4, 2, 3, 3}, "conv.lora_up.weight": {5, 4}}, false},
		"a matrix for filters":  {map[string][]int{"conv.lora_down.weight": {2, 3}, "conv.lora_up.weight": {5, 2}}, false},
		"other filters":         {map[string][]int{"conv.lora_down.weight": {2, 3, 1, 3}, "conv.lora_up.weight": {5, 2}}, false},
		"both names":            {map[string][]int{"conv.diff": {5, 3, 3, 3}, "input.0.op.diff": {5, 3, 3, 3}}, false},
		"full":                  {map[string][]int{"conv.diff": {5, 3, 3, 3}, "conv.diff_b": {5}}, true},
		"another bias":          {map[string][]int{"conv.diff": {5, 3, 3, 3}, "conv.diff_b": {3}}, false},
		"norm":                  {map[string][]int{"norm.w_norm": {5}, "norm.b_norm": {5}}, true},
		"another norm":          {map[string][]int{"norm.w_norm": {3}, "norm.b_norm": {3}}, false},
		"without a bias":        {map[string][]int{"scale.w_norm": {5}, "scale.b_norm": {5}}, false},
		"tokens":                {map[string][]int{"tokens.diff": {5, 3}}, false},
		"unknown":               {map[string][]int{"b.diff": {5, 3}}, false},
	} {
		err := fit(c.tensors)
		var misfit *Misfit
		if c.fits && err != nil || !c.fits && !errors.As(err, &misfit) {
			t.Errorf("%s: %v, want it to fit: %v", name, err, c.fits)
		}
	}
}

// FuzzRead: whatever tensors a file names, Read says what is wrong, and what it takes can be declared.
func FuzzRead(f *testing.F) {
	f.Add("l.lora_down.weight", "l.lora_up.weight", "l.alpha", uint32(0x0203), uint32(0x0502), uint32(1))
	f.Add("l.hada_w1_a", "l.hada_w1_b", "l.hada_w2_a", uint32(0x0203), uint32(0x0302), uint32(0x0203))
	f.Add("l_conv.lokr_w1", "l_conv.lokr_w2_a", "l_conv.lokr_w2_b", uint32(0x0203), uint32(0x0302), uint32(0x0209))
	f.Add("lora_unet_l.lora_mid.weight", "unet.l.lora_A.weight", "unet.l.lora_B.weight", uint32(0x03030202), uint32(0x0302), uint32(0x0203))
	f.Fuzz(func(t *testing.T, a, b, c string, as, bs, cs uint32) {
		m := memory{}
		for name, packed := range map[string]uint32{a: as, b: bs, c: cs} {
			var shape []int
			for ; packed > 0; packed >>= 8 {
				shape = append(shape, int(packed&15))
			}
			m.put(name, shape...)
		}
		file, err := Read(m, "", nil)
		if err != nil {
			return
		}
		for _, layers := range file.Parts {
			w := NewWeights(m, layers)
			s := nn.NewScope(w)
			Declare(s, layers)
			if _, err := s.Finish(func(string) bool { return true }); err != nil {
				continue
			}
			for _, l := range layers {
				if l.made == nil {
					continue
				}
				section, err := w.Section(l.made.name)
				if err == nil {
					_, err = io.Copy(io.Discard, section)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// FuzzConfig: whatever stands beside tensors, factors are finite numbers or refused.
func FuzzConfig(f *testing.F) {
	f.Add(`{"lora_alpha": 8, "alpha_pattern": {"a": 1e308}}`)
	f.Add(`{"unet.lora_alpha": 8, "unet.use_rslora": true}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConfig([]byte(text))
		if v := c.of("a", 3); err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
			t.Errorf("a factor of %g", v)
		}
		_, _ = ParseMetadata(map[string]string{metadata: text})
	})
}
