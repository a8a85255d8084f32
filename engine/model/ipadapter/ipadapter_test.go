package ipadapter

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// stored are tensors by their names.
type stored map[string]tensor.Shape

func (s stored) Info(name string) (tensor.DType, tensor.Shape, bool) {
	shape, ok := s[name]
	return tensor.F16, shape, ok
}
func (s stored) TypeName(string) string { return "F16" }
func (s stored) Where(string) string    { return "ip-adapter.safetensors" }
func (s stored) Names() []string        { return slices.Sorted(maps.Keys(s)) }

// Numbers are the order, whatever order they are in as texts, and none is left out.
func TestInferOrders(t *testing.T) {
	in := stored{"image_proj.proj.weight": {4 * 8, 6}, "image_proj.norm.weight": {8}}
	var want []Attention
	for i := range 6 {
		want = append(want, Attention{2*i + 1, 3 + i})
		in[fmt.Sprintf("ip_adapter.%d.to_k_ip.weight", 2*i+1)] = tensor.Shape{3 + i, 8}
	}
	c, err := Infer(in)
	if err != nil || !slices.Equal(c.Attentions, want) || c.Tokens != 4 || c.ContextDim != 8 || c.ImageDim != 6 {
		t.Errorf("%+v, %v, want attentions %v", c, err, want)
	}
	delete(in, "ip_adapter.9.to_k_ip.weight")
	if _, err := Infer(in); err == nil || !strings.Contains(err.Error(), "ip_adapter.9 is missing") {
		t.Errorf("without one: %v", err)
	}
}

// Whatever names and shapes a file has, it is refused, or declared in bounds and recorded.
func FuzzInfer(f *testing.F) {
	f.Add("image_proj.proj.weight image_proj.norm.weight ip_adapter.1.to_k_ip.weight ip_adapter.1.to_v_ip.weight", byte(8), byte(64))
	f.Add("image_proj.latents image_proj.proj_in.weight image_proj.proj_out.weight image_proj.layers.0.0.to_q.weight image_proj.layers.0.1.1.weight ip_adapter.01.to_k_ip.weight", byte(64), byte(64))
	f.Fuzz(func(t *testing.T, text string, a, b byte) {
		in := stored{}
		for _, name := range strings.Fields(text) {
			in[name] = tensor.Shape{int(a), int(b), int(a)}
		}
		c, err := Infer(in)
		if err != nil {
			if e := new(Error); !errors.As(err, &e) {
				t.Fatal(err)
			}
			return
		}
		s := nn.NewScope(in)
		m := New(s, c)
		if n := len(s.Manifest().Params); n > 20000 {
			t.Fatalf("%d parameters", n)
		}
		tape := device.NewTape(s.Manifest())
		var queries device.Array
		states := 1
		if c.Resampler != nil {
			queries, states = tape.IDs("queries", 1, c.Tokens), 3
		}
		m.KeyValues(tape, m.Tokens(tape, tape.Input("states", 1, states, c.ImageDim), queries))
		if tape.Err() != nil {
			t.Fatal(tape.Err())
		}
	})
}
