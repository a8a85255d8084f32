package fleet

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// Model is what the services together can do with a model.
type Model struct {
	Name       string
	Recipes    []stage.Recipe
	Components []Component  // by name
	Problem    *stage.Error // why it cannot be used, nil when it can
	Warnings   []string     // see stage.Component

	parts    map[string]string // see Part
	editions map[place]stage.Edition
}

// Component is a component of a model, as the first service tells that can load it.
type Component struct {
	stage.Component
	Kind stage.Kind
}

// Recipe is that of a task, of no name the first. InvalidField.
func (m Model) Recipe(task string) (stage.Recipe, error) {
	var tasks []string
	for _, r := range m.Recipes {
		if task == "" || r.Task == task {
			return r, nil
		}
		tasks = append(tasks, r.Task)
	}
	return stage.Recipe{}, stage.Invalid(stage.InvalidField, "task", task, "one of "+strings.Join(tasks, ", "))
}

// Able is why a job cannot take some turns: ModelInvalid, nil if it can.
func (m Model) Able(turns []stage.Turn) error {
	for _, t := range turns {
		for _, name := range t.Components() {
			if why := m.lacks(t.Kind, name); why != "" {
				return m.invalid("%s", why)
			}
		}
	}
	return nil
}

// Models lists every model that some service knows, by name, from what the services last said.
func (f *Fleet) Models() []Model {
	var told []stage.Info
	for _, id := range slices.Sorted(maps.Keys(f.members)) {
		if info, _ := f.members[id].last(); info != nil {
			told = append(told, *info)
		}
	}
	out := Catalog(told)
	for i := range out {
		out[i].Warnings = append(out[i].Warnings, f.differing(out[i])...)
	}
	return out
}

// Catalog is the models that stages tell of, by name; of stages that have the same, what the first can use counts.
func Catalog(stages []stage.Info) (out []Model) {
	told := map[string]map[stage.Kind]stage.Model{}
	components := map[string]map[string]Component{} // by model and name
	for _, info := range stages {
		for _, m := range info.Models {
			if told[m.Name] == nil {
				told[m.Name], components[m.Name] = map[stage.Kind]stage.Model{}, map[string]Component{}
			}
			if had, ok := told[m.Name][info.Kind]; !ok || had.Problem != "" {
				told[m.Name][info.Kind] = m
			}
		}
		for _, c := range info.Components {
			if had, ok := components[c.Model][c.Name]; components[c.Model] != nil && (!ok || had.Problem != "") {
				components[c.Model][c.Name] = Component{c, info.Kind}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(told)) {
		out = append(out, join(name, told[name], components[name]))
	}
	return out
}

// byDefault is the model of a request that names none: the only one that can be used, or the only one at all, whose problem is
// then told. It is empty where nothing says which.
func byDefault(models []Model) string {
	usable := slices.DeleteFunc(slices.Clone(models), func(m Model) bool { return m.Problem != nil })
	for _, some := range [][]Model{models, usable} {
		if len(some) == 1 {
			return some[0].Name
		}
	}
	return ""
}

// Model gives a model that can be used; of no name, the only one. It waits for stages that have not answered yet; when
// patience or ctx ends first, the error is StageUnreachable and names the first that is missing.
// ModelNotFound, ModelInvalid.
func (f *Fleet) Model(ctx context.Context, name string, patience time.Duration) (Model, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	unheard := func() stage.Kind { return f.lacking(func(info *stage.Info, _ bool) bool { return info != nil }) }
	if missing := unheard(); missing != 0 && f.Await(ctx, func() bool { missing = unheard(); return missing == 0 }) != nil {
		return Model{}, f.Ended(ctx, missing, true)
	}
	models := f.Models()
	name = cmp.Or(name, byDefault(models))
	i := slices.IndexFunc(models, func(m Model) bool { return m.Name == name })
	if i < 0 {
		var names []string
		for _, m := range models {
			names = append(names, m.Name)
		}
		return Model{}, stage.NoSuchModel(name, names)
	}
	m := models[i]
	if m.Problem != nil {
		return Model{}, m.Problem
	}
	m.parts = f.sharing(m)
	m.editions = f.editions(m)
	return m, nil
}

// lacking gives the first kind of which no service is there, by what is last known of each; 0 if there is one of every kind.
func (f *Fleet) lacking(there func(info *stage.Info, up bool) bool) stage.Kind {
	found := map[stage.Kind]bool{}
	for _, m := range f.members {
		found[m.kind] = found[m.kind] || there(m.last())
	}
	for _, kind := range stage.Kinds() {
		if !found[kind] {
			return kind
		}
	}
	return 0
}
