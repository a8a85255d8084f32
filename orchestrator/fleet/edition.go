package fleet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// place is a component in a service.
type place struct {
	service   residency.StageID
	component string
}

// Edition is what a service said of a component, of the model or equal to one of it, when the model was asked for.
func (m Model) Edition(id residency.StageID, component string) stage.Edition {
	return m.editions[place{id, component}]
}

func (f *Fleet) editions(m Model) map[place]stage.Edition {
	out := map[place]stage.Edition{}
	for _, s := range f.all() {
		if info, _ := s.last(); info != nil {
			for _, c := range info.Components {
				if slices.ContainsFunc(m.Components, func(own Component) bool { return c.Name == own.Name || c.Name == m.Part(own.Name) }) {
					out[place{s.id, c.Name}] = c.Edition
				}
			}
		}
	}
	return out
}

// Compute is the type that a service computes in, see stage.Info.
func (f *Fleet) Compute(id residency.StageID) string {
	m := f.member(id)
	if m == nil {
		return ""
	}
	info, _ := m.last()
	if info == nil {
		return ""
	}
	return info.Compute
}

// Anew is a model that Model or Chosen gave, behind a look at every service that is there.
func (f *Fleet) Anew(ctx context.Context, m Model) (Model, error) {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	before := map[*member]*stage.Info{}
	for _, s := range f.all() {
		if info, up := s.last(); up {
			before[s] = info
			f.Ask(s.id)
		}
	}
	err := f.Await(ctx, func() bool {
		maps.DeleteFunc(before, func(m *member, info *stage.Info) bool {
			now, up := m.last()
			return !up || now != info
		})
		return len(before) == 0
	})
	if err != nil {
		return Model{}, err
	}
	now, err := f.Model(ctx, m.Name, infoTimeout)
	if err != nil {
		return Model{}, err
	}
	return f.Chosen(ctx, now, m.options, infoTimeout)
}

// differing says in words which services are known to have other files of a model than others of their kind.
func (f *Fleet) differing(m Model) (out []string) {
	for _, of := range m.Components {
		var have []string
		identities := map[string]bool{}
		for _, s := range f.all() {
			info, _ := s.last()
			if c := component(info, of.Name); c.Identity != "" {
				identities[c.Identity] = true
				have = append(have, fmt.Sprintf("%s has %s", s.id, c.Short()))
			}
		}
		if len(identities) > 1 {
			out = append(out, fmt.Sprintf("the %v services have different files of %s: %s", of.Kind, of.Name, strings.Join(have, ", ")))
		}
	}
	return out
}

// component is what a service, which may not have answered yet, says of one of its components; the zero one if it has none of the name.
func component(info *stage.Info, name string) stage.Component {
	if info != nil {
		for _, c := range info.Components {
			if c.Name == name {
				return c
			}
		}
	}
	return stage.Component{}
}

// alike tells whether two infos of a service name the same components, and whether plans of each are the same in them.
func alike(a, b *stage.Info) (names, all bool) {
	same := func(a, b stage.Component) bool {
		return a.Name == b.Name && (a.Problem == "") == (b.Problem == "")
	}
	names = slices.EqualFunc(a.Components, b.Components, same) && a.Planning == b.Planning
	return names, names && slices.EqualFunc(a.Components, b.Components, func(a, b stage.Component) bool {
		return a.Stamp == b.Stamp && a.WeightsBytes == b.WeightsBytes
	})
}
