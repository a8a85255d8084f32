package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// beside tells whether the model is nothing but an adapter of others.
func (m Model) beside() bool { return m.Adapter != "" && len(m.Recipes) == 0 }

// namesOf are those of some models.
func namesOf(models []Model, some func(Model) bool) (names []string) {
	for _, m := range models {
		if some(m) {
			names = append(names, m.Name)
		}
	}
	return names
}

// Chosen is a model as a job uses it that has some options: with members in the place of slots, and the components of the adapters
// that options name. Stages are waited for as Model does. InvalidField where there is no such adapter or it has nothing for the
// model, ModelInvalid where it cannot be used.
func (f *Fleet) Chosen(ctx context.Context, m Model, options stage.Options, patience time.Duration) (Model, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var (
		chosen  Model
		missing stage.Kind
		err     error
	)
	find := func() bool {
		told, unheard := f.heard()
		chosen, missing, err = choose(Catalog(told), m, options)
		if !unheard[missing] {
			missing = 0
		}
		return missing == 0
	}
	if !find() && f.Await(ctx, find) != nil {
		return Model{}, f.Ended(ctx, missing, true)
	}
	if err != nil {
		return Model{}, err
	}
	return f.known(chosen), nil
}

// choose is Chosen among some models; missing is the kind of which no service has an adapter, 0 if it is not that.
func choose(models []Model, m Model, options stage.Options) (chosen Model, missing stage.Kind, err error) {
	adapters := map[string]Model{}
	for _, r := range m.Recipes {
		for _, o := range r.Options {
			if o.Adapter == "" {
				continue
			}
			for _, c := range options.Chosen(o.Name) {
				if adapters[c.Name], missing, err = adapter(models, r, o, c.Name); err != nil {
					return m, missing, err
				}
			}
		}
	}
	m.options, m.Components, m.Recipes = options, slices.Clone(m.Components), slices.Clone(m.Recipes)
	for _, a := range adapters {
		m.Components = append(m.Components, a.Components...)
	}
	slices.SortFunc(m.Components, func(a, b Component) int { return strings.Compare(a.Name, b.Name) })
	for i, r := range m.Recipes {
		m.Recipes[i] = r.Choose(options, func(model, part string) bool { return adapters[model].has(part) })
	}
	return m, 0, nil
}

// has tells whether some service knows a part of the model.
func (m Model) has(part string) bool {
	return slices.ContainsFunc(m.Components, func(c Component) bool { return c.Name == m.Name+"/"+part })
}

// adapter is the model that an option of a recipe names: of the option's kind, known to each service that takes a turn with it, and
// with a part for one of them.
func adapter(models []Model, r stage.Recipe, o stage.OptionSpec, name string) (a Model, missing stage.Kind, err error) {
	var kinds []stage.Kind
	var parts []string
	for _, t := range r.Turns {
		for _, m := range t.Members {
			if m.Option == o.Name {
				kinds, parts = append(kinds, t.Kind), append(parts, m.Component)
			}
		}
	}
	i := slices.IndexFunc(models, func(m Model) bool { return m.Name == name })
	accepted := "a " + o.Adapter
	if names := namesOf(models, func(m Model) bool { return m.Adapter == o.Adapter && m.Problem == nil }); len(names) > 0 {
		accepted = "one of " + strings.Join(names, ", ")
	} else {
		accepted += ", of which the services have none"
	}
	switch {
	case i < 0 && len(kinds) > 0:
		return a, kinds[0], stage.Invalid(stage.InvalidField, o.Name, name, accepted)
	case i < 0:
		return a, 0, stage.Invalid(stage.InvalidField, o.Name, name, accepted)
	}
	switch a = models[i]; {
	case a.Problem != nil:
		return a, a.missing, a.Problem.With("field", o.Name)
	case a.Adapter != o.Adapter:
		is := cmp.Or(a.Adapter, "model to draw with")
		return a, 0, stage.Invalid(stage.InvalidField, o.Name, name, fmt.Sprintf("%s; it is a %s", accepted, is))
	}
	for _, kind := range kinds {
		if !slices.Contains(a.told, kind) {
			return a, kind, a.invalid("no %v service has model %q", kind, name).With("field", o.Name)
		}
	}
	if len(parts) > 0 && !slices.ContainsFunc(parts, a.has) {
		return a, 0, stage.Invalid(stage.InvalidField, o.Name, name, fmt.Sprintf("a %s with %s", o.Adapter, strings.Join(parts, " or ")))
	}
	return a, 0, nil
}
