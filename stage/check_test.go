package stage

import (
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
)

func TestCheckValues(t *testing.T) {
	ports := []Port{
		{Name: "states", Shape: []string{"batch", "tokens", "8"}},
		{Name: "noise", Shape: []string{"batch", "2"}, Optional: true},
		{Name: "picture", Media: "image/*", Optional: true},
		{Name: "frames", Shape: []string{"3"}, Optional: true, Units: "count"},
	}
	tensorOf := func(name string, shape ...int) Value {
		n, _ := tensor.Shape(shape).Elems()
		return Value{Name: name, Tensor: tensor.FromF32(make([]float32, n), shape...)}
	}
	states, picture := tensorOf("states", 2, 5, 8), Value{Name: "picture", File: &File{Media: "image/png"}}
	frame := func(i int) Value {
		v := tensorOf("frames", 3)
		v.Unit, v.Units = i, 2
		return v
	}
	short := tensorOf("states", 2, 5, 8)
	short.Tensor.Data = short.Tensor.Data[1:]
	for name, c := range map[string]struct {
		values Values
		want   Reason
	}{
		"twice":         {Values{states, states}, InvalidField},
		"units":         {Values{states, frame(0), frame(1)}, ""},
		"a unit twice":  {Values{states, frame(1), frame(1)}, InvalidField},
		"cut off":       {Values{short}, TensorInvalid},
		"all":           {Values{states, tensorOf("noise", 2, 2), picture}, ""},
		"the least":     {Values{states}, ""},
		"none":          {nil, InvalidField},
		"another":       {Values{states, tensorOf("more", 1)}, InvalidField},
		"a number":      {Values{tensorOf("states", 2, 5, 7)}, TensorInvalid},
		"fewer sides":   {Values{tensorOf("states", 2, 5)}, TensorInvalid},
		"nothing in it": {Values{tensorOf("states", 0, 5, 8)}, TensorInvalid},
		"another batch": {Values{states, tensorOf("noise", 1, 2)}, TensorInvalid},
		"no picture":    {Values{states, {Name: "picture", File: &File{Media: "text/plain"}}}, InvalidField},
		"a tensor":      {Values{states, tensorOf("picture", 1)}, InvalidField},
		"a file":        {Values{{Name: "states", File: &File{Media: "image/png"}}}, InvalidField},
	} {
		if err := Check(ports, c.values); ReasonOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestCompleteOptions(t *testing.T) {
	r := Recipe{Options: []OptionSpec{
		{Name: "steps", Type: Int, Min: 1, Max: 9, Default: IntOption(4)},
		{Name: "sampler", Type: Text, Choices: []string{"a"}, Problem: "none is known", Refused: SamplerUnsupported},
		{Name: "note", Type: Text},
	}}
	all := []string{"steps", "sampler", "note"}
	for name, c := range map[string]struct {
		names []string
		given Options
		want  Reason
		steps int64
	}{
		"a default":    {all, Options{"sampler": TextOption("a")}, "", 4},
		"given":        {all, Options{"sampler": TextOption("a"), "steps": IntOption(9)}, "", 9},
		"refused":      {all, Options{"sampler": TextOption("a"), "steps": IntOption(10)}, InvalidField, 0},
		"missing":      {all, nil, SamplerUnsupported, 0},
		"not read":     {all[:1], Options{"note": TextOption("x")}, InvalidField, 0},
		"not of those": {all[:1], nil, "", 4},
	} {
		o, err := r.Complete(c.names, c.given)
		if ReasonOf(err) != c.want || o["steps"].Int != c.steps {
			t.Errorf("%s: %v, %v; want %q", name, o, err, c.want)
		}
		if _, said := o["note"]; said {
			t.Errorf("%s: a note that nobody gave", name)
		}
	}
}
