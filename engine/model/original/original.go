// Package original knows what the parameters of networks are called in the files of the repositories that they were first
// published by (CompVis and Stability AI, open_clip, lllyasviel's ControlNet), beside diffusers' and transformers' names, which
// the engine uses. Tables are made from configs: a network of other widths and depths has other places.
//
// The package may import the engine's nn, tensor and model packages.
package original

import (
	"strings"

	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Param is a parameter under both names.
type Param struct {
	Name     string       // "down_blocks.0.resnets.0.conv1.weight"
	Original string       // "input_blocks.1.0.in_layers.2.weight"
	Shape    tensor.Shape // as the engine uses it; a 1x1 convolution is a matrix [out, in]
	// Part of Parts is where the parameter's rows are in the stored tensor, which has as many for each of the others; 0 of 0 is
	// all of it.
	Part, Parts int
	// Transposed is that the stored tensor is [in, out].
	Transposed bool
}

// Module is a layer with parameters of its own, under both names.
type Module struct {
	Name     string // "down_blocks.0.resnets.0.conv1"
	Original string // "input_blocks.1.0.in_layers.2"
}

// Modules lists the layers of parameters, in their order, but for those that share a stored tensor with others.
func Modules(params []Param) (out []Module) {
	module := func(param string) string { return param[:max(0, strings.LastIndexByte(param, '.'))] }
	for _, p := range params {
		m := Module{module(p.Name), module(p.Original)}
		if p.Parts == 0 && m.Original != "" && (len(out) == 0 || out[len(out)-1] != m) {
			out = append(out, m)
		}
	}
	return out
}

// nothing is a source without tensors: what a network asks it for is all that the network has.
type nothing struct{}

func (nothing) Info(string) (tensor.DType, tensor.Shape, bool) { return tensor.Invalid, nil, false }
func (nothing) TypeName(string) string                         { return "" }
func (nothing) Where(string) string                            { return "" }
func (nothing) Names() []string                                { return nil }

// declared are the parameters of a network, under its own names alone.
func declared(declare func(*nn.Scope)) (out []Param) {
	s := nn.NewScope(nothing{})
	declare(s)
	for _, p := range s.Manifest().Params {
		out = append(out, Param{Name: p.Name, Shape: p.Shape})
	}
	return out
}

// rename gives parameters the names that prefixes of paths stand for, the longest that fits; those without one have the same name in
// both. Layers behind a prefix go by inner, the first of which that fits is taken.
func rename(params []Param, prefixes map[string]string, inner ...[2]string) []Param {
	for i := range params {
		name := params[i].Name
		head, tail := name, ""
		for head != "" && prefixes[head] == "" {
			head = head[:max(0, strings.LastIndexByte(head, '.'))]
			tail = name[len(head):]
		}
		for _, layer := range inner {
			if rest, ok := strings.CutPrefix(tail, "."+layer[0]+"."); ok {
				tail = "." + layer[1] + "." + rest
				break
			}
		}
		params[i].Original = prefixes[head] + tail
	}
	return params
}
