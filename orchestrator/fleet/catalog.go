package fleet

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// Model is what the services together can do with a model.
type Model struct {
	Name       string
	Adapter    string // see stage.Model
	Recipes    []stage.Recipe
	Components []Component  // by name
	Problem    *stage.Error // why it cannot be used, nil when it can
	Warnings   []string     // see stage.Component

	told     []stage.Kind      // of which some service knows the model
	options  stage.Options     // see Chosen
	missing  stage.Kind        // of which no service has all of the model, 0 if that is not the problem
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
	return f.models(f.told())
}

// models is what the fleet tells of the models of some stages.
func (f *Fleet) models(told []stage.Info) []Model {
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
// then told. It is empty where nothing says which. Adapters are not drawn with.
func byDefault(models []Model) string {
	models = slices.DeleteFunc(slices.Clone(models), func(m Model) bool { return m.Adapter != "" })
	usable := slices.DeleteFunc(slices.Clone(models), func(m Model) bool { return m.Problem != nil })
	for _, some := range [][]Model{models, usable} {
		if len(some) == 1 {
			return some[0].Name
		}
	}
	return ""
}

// Model gives a model that can be used; of no name, the only one. It waits for stages that have not answered yet and may have it;
// when patience or ctx ends first, the error is StageUnreachable and names the first kind that is missing.
// ModelNotFound, ModelInvalid.
func (f *Fleet) Model(ctx context.Context, name string, patience time.Duration) (Model, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m, missing, err := f.find(name)
	if missing != 0 && f.Await(ctx, func() bool { m, missing, err = f.find(name); return missing == 0 }) != nil {
		return Model{}, f.Ended(ctx, missing, true)
	}
	if err != nil {
		return Model{}, err
	}
	return f.known(m), nil
}

// known adds what services told of the model's components.
func (f *Fleet) known(m Model) Model {
	m.parts = f.sharing(m)
	m.editions = f.editions(m)
	return m
}

// find is a model that can be used, unless stages of a kind have to be heard of before that can be told. It reads once who has told
// what: a stage that answers meanwhile would be neither among the models nor among those still to be heard.
func (f *Fleet) find(name string) (m Model, missing stage.Kind, err error) {
	told, unheard := f.heard()
	for _, kind := range stage.Kinds() {
		if !slices.ContainsFunc(told, func(info stage.Info) bool { return info.Kind == kind }) {
			return m, kind, nil
		}
	}
	models := f.models(told)
	name = cmp.Or(name, byDefault(models))
	i := slices.IndexFunc(models, func(m Model) bool { return m.Name == name })
	if i < 0 || models[i].beside() {
		names := namesOf(models, func(m Model) bool { return !m.beside() })
		err := stage.NoSuchModel(name, names)
		if i >= 0 {
			err.Message += fmt.Sprintf("; %s is of the kind %s, which draws nothing by itself", name, models[i].Adapter)
		}
		return m, 0, err
	}
	switch m = models[i]; {
	case m.Problem == nil:
		return m, 0, nil
	case m.missing != 0 && unheard[m.missing]:
		return m, m.missing, nil
	}
	return m, 0, m.Problem
}

// told is what every service last said of itself, by id, and behind that, of each name without any, what the last one there had said.
func (f *Fleet) told() []stage.Info {
	told, _ := f.heard()
	return told
}

// heard is what told gives, and the kinds of which an address or a name has told nothing yet.
func (f *Fleet) heard() (told []stage.Info, unheard map[stage.Kind]bool) {
	unheard = map[stage.Kind]bool{}
	known := map[*member]bool{}
	members := f.all()
	for _, m := range members {
		if info, _ := m.last(); info != nil {
			told, known[m] = append(told, *info), true
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range members {
		unheard[m.kind] = unheard[m.kind] || !known[m] && m.given
	}
	for _, n := range f.names {
		switch {
		case slices.ContainsFunc(members, func(m *member) bool { return known[m] && slices.Contains(m.names, n) }):
		case n.past != nil:
			told = append(told, *n.past)
		default:
			unheard[n.kind] = true
		}
	}
	return told, unheard
}
