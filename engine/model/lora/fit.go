package lora

import (
	"fmt"
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/original"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Table finds the layers of a network by all names that files have for them.
type Table struct {
	manifest *device.Manifest
	layers   map[string]target // by Key
}

// target is a layer of a network.
type target struct{ weight, bias device.Weight }

// NewTable lists the layers of a network, and what modules are called in other files.
func NewTable(m *device.Manifest, modules []original.Module) *Table {
	t := &Table{manifest: m, layers: map[string]target{}}
	byName := map[string]target{}
	for i, p := range m.Params {
		module, what := p.Name, ""
		if at := strings.LastIndexByte(p.Name, '.'); at >= 0 {
			module, what = p.Name[:at], p.Name[at+1:]
		}
		l := byName[module]
		switch {
		case what == "weight" && p.Layout != device.Table:
			l.weight = m.Weight(i)
		case what == "bias":
			l.bias = m.Weight(i)
		default:
			continue
		}
		byName[module] = l
	}
	add := func(name string, l target) {
		if _, there := t.layers[Key(name)]; !there && l.weight.Present() {
			t.layers[Key(name)] = l
		}
	}
	for name, l := range byName {
		add(name, l)
	}
	for _, module := range modules {
		add(module.Original, byName[module.Name])
	}
	for name, l := range byName { // as diffusers' attention processors have them
		if short, ok := strings.CutSuffix(name, ".to_out.0"); ok {
			add(short+".to_out", l)
		}
		for _, which := range []string{"q", "k", "v", "out"} {
			if block, ok := strings.CutSuffix(name, ".self_attn."+which+"_proj"); ok {
				add(block+".self_attn.to_"+which, l)
			}
		}
	}
	return t
}

// Misfit is a LoRA that is for another network.
type Misfit struct {
	Layer    string // as the file has it
	Expected string
	Got      string
}

// Error reads `"lora_unet_mid_block_attentions_0_proj_in": expected [16, 24], got [16, 32]`.
func (e *Misfit) Error() string {
	return fmt.Sprintf("%.120q: expected %s, got %s", e.Layer, e.Expected, e.Got)
}

// Fit is a LoRA's layers on those of a network.
type Fit struct {
	layers  []*Layer
	targets []target // of layers
}

// Fit finds the layer of the network for each of a LoRA's, whose weights are declared in a manifest. The error is a Misfit.
func (t *Table) Fit(m *device.Manifest, layers []*Layer) (Fit, error) {
	f := Fit{layers: layers}
	taken := map[device.Weight]*Layer{}
	for _, l := range layers {
		to, ok := t.layers[l.Key]
		if !ok {
			return f, &Misfit{Layer: l.Named, Expected: "a layer that the model has", Got: "another one"}
		}
		if other := taken[to.weight]; other != nil {
			return f, &Misfit{Layer: l.Named, Expected: "one difference for a layer", Got: fmt.Sprintf("%.120q for the same", other.Named)}
		}
		taken[to.weight] = l
		want := t.manifest.At(to.weight)
		if got := l.shape(m, want.Layout); got == nil || !got.Equal(want.Shape) {
			return f, &Misfit{Layer: l.Named, Expected: "a difference of " + want.Shape.String(), Got: l.told(m, got)}
		}
		if b := l.weights.AddedBias; want.Layout == device.Vector && !to.bias.Present() || b.Present() && m.At(b).Shape[0] != want.Shape[0] || want.Layout == device.Vector && !b.Present() {
			return f, &Misfit{Layer: l.Named, Expected: fmt.Sprintf("differences of weight and bias, of %d each", want.Shape[0]), Got: "others"}
		}
		f.targets = append(f.targets, to)
	}
	return f, nil
}

// shape is that of the weight that a layer's difference is for; nil if it is for none of a layout.
func (l *Layer) shape(m *device.Manifest, want device.Layout) tensor.Shape {
	w := l.weights
	if w.Added.Present() {
		if p := m.At(w.Added); p.Layout == want {
			return p.Shape
		}
		return nil
	}
	d, u := m.At(w.Down), m.At(w.Up)
	out := tensor.Shape{u.Shape[0], d.Shape[1]}
	inner := d
	if w.Mid.Present() {
		if inner = m.At(w.Mid); inner.Layout == device.Filter && d.Layout == device.Filter {
			return nil
		}
		if inner.Layout != device.Filter {
			inner = d
		}
	}
	switch {
	case inner.Layout == device.Filter:
		out = append(out, inner.Shape[2:]...)
	case want == device.Filter:
		return nil
	}
	if (len(out) == 4) != (want == device.Filter) {
		return nil
	}
	return out
}

// told is what a layer has, for errors.
func (l *Layer) told(m *device.Manifest, shape tensor.Shape) string {
	if shape != nil {
		return "one of " + shape.String()
	}
	for _, w := range []device.Weight{l.weights.Added, l.weights.Down} {
		if w.Present() {
			return "one of another kind of layer, " + m.At(w).Shape.String()
		}
	}
	return "another one"
}

// Adapt has a tape compute with a LoRA, whose manifest is one of the tape's further ones. scales gives the inputs that Scales are written to.
func (f Fit) Adapt(t *device.Tape, further int, scale func(layer int) device.Array) {
	for i, l := range f.layers {
		w, at := l.weights, func(w device.Weight) device.Weight { return t.Further(further, w) }
		t.Adapt(f.targets[i].weight, device.Adaptation{
			Down: at(w.Down), Mid: at(w.Mid), Up: at(w.Up), Added: at(w.Added), AddedBias: at(w.AddedBias), Scale: scale(i),
		})
	}
}

// Scales are what the differences of layers are multiplied by at a weight, in their order.
func (f Fit) Scales(weight float64) []float32 {
	out := make([]float32, len(f.layers))
	for i, l := range f.layers {
		out[i] = float32(weight * l.Factor)
	}
	return out
}
