package stagetest

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// chosen are the option of the request that names models in slots, and what it names.
func (c contract) chosen(t *testing.T, recipe stage.Recipe) (option stage.OptionSpec, named []stage.Choice) {
	t.Helper()
	for name := range c.Request.Options {
		if o, _ := recipe.Option(name); o.Adapter != "" {
			return o, c.Request.Options.Chosen(name)
		}
	}
	t.Fatal("no option of the request names adapters")
	panic("unreachable")
}

// testAdapted: what an option names works as the request says, and only where it is among the components.
func (c contract) testAdapted(t *testing.T) {
	s, _ := c.loaded(t)
	recipe, _ := c.turn(t, s)
	option, named := c.chosen(t, recipe)
	for _, m := range info(t, s).Models {
		if slices.ContainsFunc(named, func(n stage.Choice) bool { return n.Name == m.Name }) && m.Adapter != option.Adapter {
			t.Errorf("%s is told to be a %q, which the option %s takes for a %q", m.Name, m.Adapter, option.Name, option.Adapter)
		}
	}
	plain := c.Request
	plain.Options = maps.Clone(plain.Options)
	delete(plain.Options, option.Name)
	plain.Components = slices.DeleteFunc(slices.Clone(plain.Components), func(name string) bool {
		return slices.ContainsFunc(named, func(n stage.Choice) bool { return n.Name == stage.ModelOf(name) })
	})
	plain.Values = slices.DeleteFunc(slices.Clone(plain.Values), func(v stage.Value) bool { return slices.Contains(option.Inputs, v.Name) })
	adapted := works(t, s, c.Request)
	same(t, "results of the same adapters", works(t, s, c.Request), adapted)
	differs(t, "adapters and none", works(t, s, plain), adapted)

	other := slices.Clone(named)
	other[0].Numbers = []float64{0.25}
	weaker := with(c.Request, option.Name, stage.TextOption(join(other)))
	before, whole := info(t, s).Resident, c.within(t, s, 0)
	differs(t, "adapters with one number and another", works(t, s, weaker), adapted)
	same(t, "weights before and after another number", info(t, s).Resident, before)
	numbered := contract{c.Subject}
	numbered.Request = weaker
	same(t, "footprints of one number and another", numbered.within(t, s, 0), whole)

	for what, change := range map[string]func(*stage.WorkRequest){
		"without an adapter that is named": func(r *stage.WorkRequest) { r.Components = r.Components[:len(r.Components)-1] },
		"with an adapter nobody names":     func(r *stage.WorkRequest) { *r = with(*r, option.Name, stage.TextOption("")) },
		"with an adapter twice": func(r *stage.WorkRequest) {
			r.Components = append(slices.Clone(r.Components), r.Components[len(r.Components)-1])
		},
		"with adapters alone":  func(r *stage.WorkRequest) { r.Components = r.Components[len(r.Components)-1:] },
		"with what is no list": func(r *stage.WorkRequest) { *r = with(*r, option.Name, stage.TextOption(named[0].Name+",,")) },
	} {
		req := c.Request
		change(&req)
		refuses(t, s, req, "Work "+what, stage.InvalidField)
	}
	unknown := with(plain, option.Name, stage.TextOption(nobody))
	if e := refuses(t, s, unknown, "Work with an adapter that is unknown", stage.InvalidField); e.Metadata["field"] != option.Name {
		t.Errorf("the error is about %q", e.Metadata["field"])
	}
	_, turn := c.turn(t, s)
	_, err := s.Plan(patient(t), stage.PlanRequest{Turn: turn.Name, Components: unknown.Components, Options: recipe.Shape(turn, unknown.Options)})
	want(t, "Plan with an adapter that is unknown", err, stage.InvalidField)
}

// join writes what an option names.
func join(named []stage.Choice) string {
	var text []string
	for _, n := range named {
		text = append(text, n.String())
	}
	return strings.Join(text, ",")
}

// differs checks that two results have other values.
func differs(t *testing.T, what string, a, b stage.Result) {
	t.Helper()
	for i, v := range a.Values {
		if string(v.Tensor.Data) != string(b.Values[i].Tensor.Data) {
			return
		}
	}
	t.Errorf("results of %s are the same", what)
}
