package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// perStage is a flag with a value for each stage, given as STAGE=VALUE, or as VALUE for all; it may be repeated, and
// the later one counts.
type perStage[T any] struct {
	values map[stage.Kind]T
	texts  map[stage.Kind]string // as they were given
	parse  func(text string) (T, error)
	kind   string // what help calls the value
}

func (p *perStage[T]) String() string { return strings.Join(p.list(), ",") }

// list is the values as they are given to the flag, one for each stage that has one.
func (p *perStage[T]) list() (out []string) {
	for _, kind := range stage.Kinds() {
		if text, ok := p.texts[kind]; ok {
			out = append(out, kind.String()+"="+text)
		}
	}
	return out
}

func (p *perStage[T]) Set(text string) error {
	kinds := stage.Kinds()
	if name, value, ok := strings.Cut(text, "="); ok {
		kind, known := stage.ParseKind(name)
		if !known {
			return fmt.Errorf("%q is not a stage, expected encoder, denoiser or decoder", name)
		}
		kinds, text = []stage.Kind{kind}, value
	}
	v, err := p.parse(text)
	if err != nil {
		return err
	}
	if p.values == nil {
		p.values, p.texts = map[stage.Kind]T{}, map[stage.Kind]string{}
	}
	for _, kind := range kinds {
		p.values[kind], p.texts[kind] = v, text
	}
	return nil
}

func (p *perStage[T]) Type() string { return "[STAGE=]" + p.kind }

// precisionFlag chooses the type that weights are kept in.
func precisionFlag(flags *pflag.FlagSet, p *perStage[tensor.DType]) {
	p.parse, p.kind = stageengine.ParsePrecision, "TYPE"
	flags.Var(p, "precision", "type in which a stage keeps its weights: f32, f16, bf16, int8 or int4, such as denoiser=int8; may be repeated (default: as stored)")
}
