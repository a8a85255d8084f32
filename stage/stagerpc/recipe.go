package stagerpc

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// kinds and optionTypes pair what stage has with its numbers on the wire.
var (
	kinds = map[stage.Kind]stagepb.StageKind{
		stage.KindEncoder:  stagepb.StageKind_STAGE_KIND_ENCODER,
		stage.KindDenoiser: stagepb.StageKind_STAGE_KIND_DENOISER,
		stage.KindDecoder:  stagepb.StageKind_STAGE_KIND_DECODER,
	}
	optionTypes = map[stage.OptionType]stagepb.OptionType{
		stage.Int:   stagepb.OptionType_OPTION_TYPE_INT,
		stage.Float: stagepb.OptionType_OPTION_TYPE_FLOAT,
		stage.Text:  stagepb.OptionType_OPTION_TYPE_TEXT,
		stage.Bool:  stagepb.OptionType_OPTION_TYPE_BOOL,
	}
)

// keyOf is the key of a value, or nothing.
func keyOf[K, V comparable](pairs map[K]V, value V) (none K) {
	for k, v := range pairs {
		if v == value {
			return k
		}
	}
	return none
}

// each turns a list into another one; of nothing it is nil.
func each[A, B any](in []A, turn func(A) B) (out []B) {
	for _, a := range in {
		out = append(out, turn(a))
	}
	return out
}

// clipped makes texts fit, and at most so many of them.
func clipped(texts []string, most int) []string { return each(some(texts, most), clip) }

// some is at most so many of a list.
func some[A any](in []A, most int) []A { return in[:min(len(in), most)] }

func modelToProto(m stage.Model) *stagepb.ModelInfo {
	return &stagepb.ModelInfo{Name: clip(m.Name), Adapter: clip(m.Adapter), Recipes: each(m.Recipes, recipeToProto), Problem: clip(m.Problem)}
}

// modelFromProto has a problem instead of recipes of a model that tells too much.
func modelFromProto(m *stagepb.ModelInfo) stage.Model {
	if much := tooMuch(m.ProtoReflect()); much != "" {
		return stage.Model{Name: clip(m.GetName()), Problem: "it tells too much: " + much}
	}
	return stage.Model{Name: m.GetName(), Adapter: m.GetAdapter(), Recipes: each(m.GetRecipes(), recipeFromProto), Problem: clip(m.GetProblem())}
}

// tooMuch says what of a message is more than is believed: entries of a list, or bytes of a text; empty is nothing.
func tooMuch(m protoreflect.Message) (much string) {
	text := func(f protoreflect.FieldDescriptor, v protoreflect.Value) {
		if n := len(v.String()); f.Kind() == protoreflect.StringKind && n > maxTextBytes {
			much = fmt.Sprintf("%d bytes of %s, at most %d are read", n, f.Name(), maxTextBytes)
		}
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsList() && v.List().Len() > maxEntries:
			much = fmt.Sprintf("%d %s, at most %d are read", v.List().Len(), f.Name(), maxEntries)
		case f.IsList():
			for i := 0; i < v.List().Len() && much == ""; i++ {
				if f.Message() != nil {
					much = tooMuch(v.List().Get(i).Message())
				} else {
					text(f, v.List().Get(i))
				}
			}
		case f.Message() != nil:
			much = tooMuch(v.Message())
		default:
			text(f, v)
		}
		return much == ""
	})
	return much
}

func recipeToProto(r stage.Recipe) *stagepb.Recipe {
	return &stagepb.Recipe{
		Family: clip(r.Family), Task: clip(r.Task), Inputs: each(r.Inputs, portToProto),
		Options: each(r.Options, specToProto), Turns: each(r.Turns, turnToProto),
	}
}

func recipeFromProto(r *stagepb.Recipe) stage.Recipe {
	return stage.Recipe{
		Family: r.GetFamily(), Task: r.GetTask(), Inputs: each(r.GetInputs(), portFromProto),
		Options: each(r.GetOptions(), specFromProto), Turns: each(r.GetTurns(), turnFromProto),
	}
}

func turnToProto(t stage.Turn) *stagepb.Turn {
	return &stagepb.Turn{
		Name: clip(t.Name), Kind: kinds[t.Kind], Takes: each(t.Takes, portToProto), Gives: each(t.Gives, portToProto),
		Members: each(t.Members, func(m stage.Member) *stagepb.Member {
			return &stagepb.Member{Component: clip(m.Component), With: clip(m.With), Option: clip(m.Option)}
		}),
		Options: each(t.Options, clip), EachImage: t.EachImage, Optional: t.Optional,
	}
}

func turnFromProto(t *stagepb.Turn) stage.Turn {
	return stage.Turn{
		Name: t.GetName(), Kind: keyOf(kinds, t.GetKind()), Takes: each(t.GetTakes(), portFromProto), Gives: each(t.GetGives(), portFromProto),
		Members: each(t.GetMembers(), func(m *stagepb.Member) stage.Member {
			return stage.Member{Component: m.GetComponent(), With: m.GetWith(), Option: m.GetOption()}
		}),
		Options: t.GetOptions(), EachImage: t.GetEachImage(), Optional: t.GetOptional(),
	}
}

func portToProto(p stage.Port) *stagepb.Port {
	return &stagepb.Port{Name: clip(p.Name), Media: clip(p.Media), Shape: each(p.Shape, clip), Optional: p.Optional, Units: clip(p.Units)}
}

func portFromProto(p *stagepb.Port) stage.Port {
	return stage.Port{Name: p.GetName(), Media: p.GetMedia(), Shape: p.GetShape(), Optional: p.GetOptional(), Units: p.GetUnits()}
}

func specToProto(s stage.OptionSpec) *stagepb.OptionSpec {
	return &stagepb.OptionSpec{
		Name: clip(s.Name), Type: optionTypes[s.Type], Default: optionToProto(s.Default), Min: s.Min, Max: s.Max, Multiple: s.Multiple,
		Choices: each(s.Choices, clip), Tokens: int64(s.Tokens), Shape: s.Shape, Unit: clip(s.Unit), Refused: string(s.Refused), Problem: clip(s.Problem),
		Adapter: clip(s.Adapter), Tag: clip(s.Tag), InTexts: each(s.InTexts, clip), Inputs: each(s.Inputs, clip), Aliases: aliasesToProto(s.Aliases),
	}
}

// aliasesToProto lists aliases in order.
func aliasesToProto(aliases map[string]stage.Alias) []*stagepb.OptionSpec_Alias {
	return each(slices.Sorted(maps.Keys(aliases)), func(name string) *stagepb.OptionSpec_Alias {
		others := aliases[name].Others
		return &stagepb.OptionSpec_Alias{
			Name: clip(name), Choice: clip(aliases[name].Choice),
			Others: each(slices.Sorted(maps.Keys(others)), func(option string) *stagepb.OptionSpec_Other {
				return &stagepb.OptionSpec_Other{Option: clip(option), Choice: clip(others[option])}
			}),
		}
	})
}

func aliasesFromProto(list []*stagepb.OptionSpec_Alias) map[string]stage.Alias {
	var out map[string]stage.Alias
	for _, a := range list {
		alias := stage.Alias{Choice: a.GetChoice()}
		for _, o := range a.GetOthers() {
			if alias.Others == nil {
				alias.Others = map[string]string{}
			}
			alias.Others[o.GetOption()] = o.GetChoice()
		}
		if out == nil {
			out = map[string]stage.Alias{}
		}
		out[a.GetName()] = alias
	}
	return out
}

func specFromProto(s *stagepb.OptionSpec) stage.OptionSpec {
	return stage.OptionSpec{
		Name: s.GetName(), Type: keyOf(optionTypes, s.GetType()), Default: optionFromProto(s.GetDefault()), Min: s.GetMin(), Max: s.GetMax(), Multiple: s.GetMultiple(),
		Choices: s.GetChoices(), Tokens: int(s.GetTokens()), Shape: s.GetShape(), Unit: s.GetUnit(), Refused: stage.Reason(s.GetRefused()), Problem: clip(s.GetProblem()),
		Adapter: s.GetAdapter(), Tag: s.GetTag(), InTexts: s.GetInTexts(), Inputs: s.GetInputs(), Aliases: aliasesFromProto(s.GetAliases()),
	}
}

// optionToProto is nil for none.
func optionToProto(o stage.Option) *stagepb.OptionValue {
	switch o.Type {
	case stage.Int:
		return &stagepb.OptionValue{Value: &stagepb.OptionValue_Int{Int: o.Int}}
	case stage.Float:
		return &stagepb.OptionValue{Value: &stagepb.OptionValue_Float{Float: o.Float}}
	case stage.Text:
		return &stagepb.OptionValue{Value: &stagepb.OptionValue_Text{Text: o.Text}}
	case stage.Bool:
		return &stagepb.OptionValue{Value: &stagepb.OptionValue_Bool{Bool: o.Bool}}
	}
	return nil
}

func optionFromProto(o *stagepb.OptionValue) stage.Option {
	switch v := o.GetValue().(type) {
	case *stagepb.OptionValue_Int:
		return stage.IntOption(v.Int)
	case *stagepb.OptionValue_Float:
		return stage.FloatOption(v.Float)
	case *stagepb.OptionValue_Text:
		return stage.TextOption(v.Text)
	case *stagepb.OptionValue_Bool:
		return stage.BoolOption(v.Bool)
	}
	return stage.Option{}
}

// optionsToProto leaves out options without a value.
func optionsToProto(options stage.Options) map[string]*stagepb.OptionValue {
	out := map[string]*stagepb.OptionValue{}
	for name, o := range options {
		if v := optionToProto(o); v != nil {
			out[name] = v
		}
	}
	return out
}

// requested are the components and options of a request. InvalidField for more of them than a turn can have.
func requested(components []string, options map[string]*stagepb.OptionValue) (stage.Options, error) {
	switch {
	case len(components) > maxMembers:
		return nil, stage.Invalid(stage.InvalidField, "components", strings.Join(some(components, maxMembers), ", "), fmt.Sprintf("at most %d, got %d", maxMembers, len(components)))
	case len(options) > maxOptions:
		return nil, stage.Invalid(stage.InvalidField, "options", fmt.Sprintf("%d options", len(options)), fmt.Sprintf("at most %d", maxOptions))
	}
	out := stage.Options{}
	for name, v := range options {
		out[name] = optionFromProto(v)
	}
	return out, nil
}
