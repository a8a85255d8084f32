package fleet

import (
	"cmp"
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// Part names the component that serves as one of the model's: itself, or one of another model that is equal.
func (m Model) Part(component string) string { return cmp.Or(m.parts[component], component) }

// Parts are those of a turn. They are the model's own when no service has the equal ones of others any more, as those models'
// files are gone.
func (f *Fleet) Parts(m Model, t stage.Turn) []string {
	own := t.Components()
	parts := make([]string, len(own))
	for i, name := range own {
		parts[i] = m.Part(name)
	}
	if !slices.Equal(parts, own) && f.Absent(t.Kind, parts) != nil && f.Absent(t.Kind, own) == nil {
		return own
	}
	return parts
}

// Equal components of models are one: who needs any of them names the same one, so that it is loaded once.

// sharing gives, for each component of a model, the first one by name that is equal to it, wherever there is either: in every
// service that has the model's, and in no service another one under that name.
func (f *Fleet) sharing(m Model) map[string]string {
	digests := map[stage.Kind][]map[string]string{} // each service's, by component
	for _, info := range f.told() {
		own := map[string]string{}
		for _, c := range info.Components {
			if c.Problem == "" {
				own[c.Name] = c.Digest
			}
		}
		digests[info.Kind] = append(digests[info.Kind], own)
	}
	parts := map[string]string{}
	for _, c := range m.Components {
		parts[c.Name] = first(digests[c.Kind], c.Name)
	}
	return parts
}

// first is sharing for one component, by the digests of the services of its kind.
func first(services []map[string]string, component string) string {
	digest, names := "", []string{}
	for _, digests := range services {
		if d, has := digests[component]; has && digest == "" {
			digest = d
			for name, other := range digests {
				if other == digest {
					names = append(names, name)
				}
			}
		}
	}
	if digest == "" {
		return component
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.ContainsFunc(services, func(digests map[string]string) bool {
			d, has := digests[component]
			other, shares := digests[name]
			return has && (d != digest || !shares) || shares && other != digest
		}) {
			return name
		}
	}
	return component
}
