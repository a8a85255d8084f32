package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/stage"
)

// join makes one model of what the services of each kind tell of it. The recipes are the denoiser's; the service of a turn's kind
// has to tell the same turn.
func join(name string, told map[stage.Kind]stage.Model, components map[string]Component) Model {
	m := Model{Name: name, told: slices.Sorted(maps.Keys(told))}
	for _, c := range slices.Sorted(maps.Keys(components)) {
		m.Components = append(m.Components, components[c])
		m.Warnings = append(m.Warnings, components[c].Warnings...)
	}
	lead := stage.KindDenoiser
	for _, kind := range stage.Kinds() {
		if _, ok := told[lead]; !ok {
			lead = kind
		}
	}
	m.Recipes, m.Adapter = told[lead].Recipes, told[lead].Adapter
	m.Problem, m.missing = m.unusable(lead, told)
	return m
}

// unusable is why a model cannot be used, nil when it can, and the kind of which no service has a part, 0 if it is not that.
func (m Model) unusable(lead stage.Kind, told map[stage.Kind]stage.Model) (why *stage.Error, missing stage.Kind) {
	for _, kind := range stage.Kinds() {
		if t, ok := told[kind]; !ok {
			if m.Adapter == "" && (kind == lead || kind == stage.KindDenoiser) {
				return m.invalid("no %v service has model %q", kind, m.Name), kind
			}
		} else if t.Problem != "" {
			return m.invalid("%s", t.Problem), 0
		}
	}
	if m.beside() { // an adapter needs all that it has
		for _, c := range m.Components {
			if c.Problem != "" {
				return m.invalid("%s", c.Problem), 0
			}
		}
	}
	for _, r := range m.Recipes {
		for _, t := range r.Turns {
			for _, c := range t.Members {
				why := m.lacks(t.Kind, c.Component)
				switch {
				case why == "" || t.Optional || c.With != "" || c.Option != "":
				case !slices.ContainsFunc(m.Components, func(own Component) bool { return own.Name == c.Component }):
					return m.invalid("%s", why), t.Kind
				default:
					return m.invalid("%s", why), 0
				}
			}
		}
		if why := misfit(r, lead, told); why != "" {
			return m.invalid("the parts of model %q do not fit: %s", m.Name, why), 0
		}
		for _, o := range r.Options {
			if o.Default.Type != 0 && o.Check(o.Name, o.Default) != nil {
				return m.invalid("model %q has no usable %s: its default is %v", m.Name, o.Name, o.Default), 0
			}
		}
	}
	return nil, 0
}

func (m Model) invalid(format string, args ...any) *stage.Error {
	return stage.Errorf(stage.ModelInvalid, format, args...).With("model", m.Name)
}

// lacks is why a component of the model cannot be used, empty when it can.
func (m Model) lacks(kind stage.Kind, name string) string {
	for _, c := range m.Components {
		if c.Name == name {
			return c.Problem
		}
	}
	model, part, _ := strings.Cut(name, "/")
	return fmt.Sprintf("no %v service has model %q with its %s", kind, model, part)
}

// misfit is which two parts of a recipe do not fit, and why: where a turn does not take what another one gives, or the service of
// its kind tells it otherwise.
func misfit(r stage.Recipe, lead stage.Kind, told map[stage.Kind]stage.Model) string {
	type giver struct {
		kind stage.Kind
		port stage.Port
	}
	given := map[string]giver{}
	for _, t := range r.Turns {
		for _, p := range t.Takes {
			g, ok := given[p.Name]
			media, _ := path.Match(p.Media, g.port.Media)
			if ok && (!media || !slices.Equal(g.port.Shape, p.Shape)) {
				return fmt.Sprintf("the %v gives %s, the %v takes %s", g.kind, words(g.port), t.Kind, words(p))
			}
		}
		for _, p := range t.Gives {
			given[p.Name] = giver{t.Kind, p}
		}
		own, ok := told[t.Kind]
		if !ok || t.Kind == lead {
			continue
		}
		if says, expected := difference(turnOf(own.Recipes, r.Task, t.Name), t); says != expected {
			return fmt.Sprintf("in turn %s the %v %s, the %v expects that it %s", t.Name, t.Kind, says, lead, expected)
		}
	}
	return ""
}

func turnOf(recipes []stage.Recipe, task, name string) stage.Turn {
	for _, r := range recipes {
		if t, ok := r.Turn(name); ok && r.Task == task {
			return t
		}
	}
	return stage.Turn{}
}

// difference is where two tellings of a turn differ, in words; equal ones if nowhere.
func difference(a, b stage.Turn) (x, y string) {
	for _, tell := range []func(stage.Turn) string{
		func(t stage.Turn) string { return "needs " + strings.Join(members(t), " and ") },
		func(t stage.Turn) string { return "takes " + list(t.Takes) },
		func(t stage.Turn) string { return "gives " + list(t.Gives) },
	} {
		if x, y = tell(a), tell(b); x != y {
			break
		}
	}
	return x, y
}

// members writes those of a turn for people, such as sdxl/unet and unet_lora of loras.
func members(t stage.Turn) (out []string) {
	for _, m := range t.Members {
		name := m.Component
		if m.Option != "" {
			name += " of " + m.Option
		}
		out = append(out, name)
	}
	return out
}

func list(ports []stage.Port) string {
	var out []string
	for _, p := range ports {
		out = append(out, words(p))
	}
	return cmp.Or(strings.Join(out, " and "), "nothing")
}

// words writes a port for people, such as latents [1, 4, height, width].
func words(p stage.Port) string {
	form := p.Media
	if form == "" {
		form = "[" + strings.Join(p.Shape, ", ") + "]"
	}
	if p.Units != "" {
		form += " in " + p.Units
	}
	if p.Optional {
		form += " or nothing"
	}
	return p.Name + " " + form
}
