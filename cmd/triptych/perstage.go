package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// weightFlags say how stages keep their weights, and multiply.
type weightFlags struct {
	precision perStage[tensor.DType]
	compute   perStage[device.Compute]
	resident  perStage[int64] // bytes
}

func (f *weightFlags) add(flags *pflag.FlagSet) {
	f.precision = perStage[tensor.DType]{name: "precision", kind: "TYPE", parse: stageengine.ParsePrecision}
	f.compute = perStage[device.Compute]{name: "compute", kind: "TYPE", parse: device.ParseCompute}
	f.resident = perStage[int64]{name: "resident-bytes", kind: "SIZE", parse: parseResident}
	flags.Var(&f.precision, f.precision.name, "type in which a stage keeps its weights: f32, f16, bf16, int8 or int4, such as denoiser=int8; without a stage, of all (default: as stored)")
	flags.Var(&f.compute, f.compute.name, "type in which a stage multiplies: f32, or bf16, which is faster and less exact and takes a processor with AVX512_BF16, such as denoiser=bf16; without a stage, all (default: f32)")
	flags.Var(&f.resident, f.resident.name, "bytes of weights that a stage keeps in memory, such as denoiser=200MiB; the others are read from the model's files at each use, at 0 all of them layer by layer; all keeps all, auto as much as the memory budget allows (default auto)")
}

// residentAuto leaves it to the orchestrator how much of its weights a stage keeps.
const residentAuto = -1

func parseResident(text string) (int64, error) {
	switch text {
	case "auto":
		return residentAuto, nil
	case "all":
		return math.MaxInt64, nil
	}
	var n byteSize
	if err := n.Set(text); err != nil {
		return 0, fmt.Errorf("%w, or all, or auto", err)
	}
	return int64(n), nil
}

// residentBytes is what stages are told to keep.
func (f *weightFlags) residentBytes() map[stage.Kind]int64 {
	out := maps.Clone(f.resident.values)
	maps.DeleteFunc(out, func(_ stage.Kind, n int64) bool { return n == residentAuto })
	return out
}

// args are the flags for the process of a stage.
func (f *weightFlags) args(kind stage.Kind) []string {
	return slices.Concat(f.precision.args(kind), f.compute.args(kind), f.resident.args(kind))
}

// only refuses a value for another stage than the one that is served.
func (f *weightFlags) only(served stage.Kind) error {
	if err := f.precision.only(served); err != nil {
		return err
	}
	if err := f.compute.only(served); err != nil {
		return err
	}
	return f.resident.only(served)
}

// check refuses types that a device does not compute in.
func (f *weightFlags) check(p device.Planner) error {
	for _, kind := range stage.Kinds() {
		if err := device.Computes(p, f.compute.values[kind]); err != nil {
			return usageError{fmt.Errorf("--compute %v=%v: %w", kind, f.compute.values[kind], err)}
		}
	}
	return nil
}

// perStage is a flag with a value for each stage, given as STAGE=VALUE, or as VALUE for all; it may be repeated, or several separated
// by commas, and the later one counts.
type perStage[T any] struct {
	name, kind string // of the flag, and what help calls its values
	parse      func(text string) (T, error)

	values map[stage.Kind]T
	texts  map[stage.Kind]string // as they were given
	all    bool                  // the last value was for all stages
}

func (p *perStage[T]) String() string {
	var out []string
	for _, kind := range stage.Kinds() {
		if text, ok := p.texts[kind]; ok {
			out = append(out, kind.String()+"="+text)
		}
	}
	return strings.Join(out, ",")
}

func (p *perStage[T]) Set(text string) error {
	for one := range strings.SplitSeq(text, ",") {
		if err := p.set(one); err != nil {
			return err
		}
	}
	return nil
}

func (p *perStage[T]) set(text string) error {
	kinds := stage.Kinds()
	name, value, one := strings.Cut(text, "=")
	if one {
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
	p.all = !one
	return nil
}

func (p *perStage[T]) Type() string { return "[STAGE=]" + p.kind }

func (p *perStage[T]) args(kind stage.Kind) []string {
	text, ok := p.texts[kind]
	if !ok {
		return nil
	}
	return []string{"--" + p.name, kind.String() + "=" + text}
}

func (p *perStage[T]) only(served stage.Kind) error {
	for _, kind := range stage.Kinds() {
		if _, ok := p.values[kind]; ok && !p.all && kind != served {
			return usageError{fmt.Errorf("--%s names the %v, expected %v=%s: no other stage is served here", p.name, kind, served, p.kind)}
		}
	}
	return nil
}
