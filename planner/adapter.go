package planner

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// adapters are models that options name, by their names.
type adapters map[string]*family.Model

// has tells whether an adapter has a part.
func (a adapters) has(model, part string) bool {
	return a[model] != nil && slices.ContainsFunc(a[model].Components, func(c family.Component) bool { return c.Name == model+"/"+part })
}

// KindOf is what a model of a library is beside models to draw with, as options name such (stage.Model.Adapter). It is empty of one to
// draw with, and of one that cannot be opened.
func KindOf(all []family.Family, library *stageengine.Library, name string) string {
	path, err := library.Path(name)
	if err != nil {
		return ""
	}
	m, err := family.Open(all, path, "")
	if err != nil {
		return ""
	}
	return m.Adapter
}

// parse reads options of a model as people write them into others. InvalidField.
func parse(recipe stage.Recipe, written map[string]string, into stage.Options) error {
	for _, name := range slices.Sorted(maps.Keys(written)) {
		spec, ok := recipe.Option(name)
		if _, said := into[name]; !ok || said || name == family.Guidance {
			var known []string
			for _, o := range recipe.Options {
				known = append(known, o.Name)
			}
			return stage.Invalid(stage.InvalidField, "option", name, "an option of the model that has no flag: "+strings.Join(known, ", "))
		}
		o, err := spec.Type.Parse(written[name])
		if err != nil {
			return stage.Invalid(stage.InvalidField, name, written[name], "a value of type "+spec.Type.String())
		}
		o, _ = spec.Named(o)
		if err := spec.Check(name, o); err != nil {
			return err
		}
		into[name] = o
	}
	return nil
}

// adaptersOf opens what options name: each a model of the option's kind, with a part for one of the recipe's turns. InvalidField,
// ModelInvalid.
func adaptersOf(o stageengine.Options, recipe stage.Recipe, options stage.Options) (adapters, error) {
	all := adapters{}
	for _, spec := range recipe.Options {
		if spec.Adapter == "" {
			continue
		}
		for _, c := range options.Chosen(spec.Name) {
			path, err := o.Library.Path(c.Name)
			if err != nil {
				return nil, stage.Invalid(stage.InvalidField, spec.Name, c.Name, oneOf(o, spec.Adapter))
			}
			m, err := family.Open(o.Families, path, "")
			if err != nil {
				return nil, stageengine.ModelError(err, stage.KindDenoiser, c.Name, path)
			}
			if m.Adapter != spec.Adapter {
				is := "model to draw with"
				if m.Adapter != "" {
					is = m.Adapter
				}
				return nil, stage.Invalid(stage.InvalidField, spec.Name, c.Name, fmt.Sprintf("a %s; it is a %s", spec.Adapter, is))
			}
			all[c.Name] = m
			if parts := partsFor(recipe, spec.Name); !slices.ContainsFunc(parts, func(part string) bool { return all.has(c.Name, part) }) {
				return nil, stage.Invalid(stage.InvalidField, spec.Name, c.Name, fmt.Sprintf("a %s with %s", spec.Adapter, strings.Join(parts, " or ")))
			}
		}
	}
	return all, nil
}

// oneOf are the adapters of a kind that there are, in words.
func oneOf(o stageengine.Options, kind string) string {
	names := slices.DeleteFunc(o.Library.Names(), func(name string) bool { return KindOf(o.Families, o.Library, name) != kind })
	if len(names) == 0 {
		return "a " + kind + ", of which there is none among the models"
	}
	return "one of " + strings.Join(names, ", ")
}

// partsFor are the parts that a recipe's turns take of what an option names.
func partsFor(recipe stage.Recipe, option string) (parts []string) {
	for _, t := range recipe.Turns {
		for _, m := range t.Members {
			if m.Option == option {
				parts = append(parts, m.Component)
			}
		}
	}
	return parts
}
