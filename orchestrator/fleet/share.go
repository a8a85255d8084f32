package fleet

import (
	"cmp"
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// Part names the model whose part serves this one in a kind of stage: itself, or one whose part is equal.
func (m Model) Part(kind stage.Kind) string { return cmp.Or(m.parts[kind], m.Name) }

// Equal parts of models are one component: who needs any of them names the same one, so that it is loaded once.

// sharing gives, for each kind, the first model by name whose part is equal to that of a model, wherever there is either:
// in every service that has the model, and in no service another one under that name.
func (f *Fleet) sharing(model string) map[stage.Kind]string {
	parts := map[stage.Kind]string{}
	for _, kind := range stage.Kinds() {
		var services []map[string]string // each one's digests by model
		for _, m := range f.members {
			if info, _ := m.last(); info != nil && m.kind == kind {
				digests := map[string]string{}
				for _, c := range info.Models {
					if c.Problem == "" {
						digests[c.Model] = c.Digest
					}
				}
				services = append(services, digests)
			}
		}
		parts[kind] = first(services, model)
	}
	return parts
}

// first is sharing for one kind.
func first(services []map[string]string, model string) string {
	digest, names := "", []string{}
	for _, digests := range services {
		if d, has := digests[model]; has && digest == "" {
			digest = d
			for name, other := range digests {
				if other == digest {
					names = append(names, name)
				}
			}
		}
	}
	if digest == "" {
		return model
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.ContainsFunc(services, func(digests map[string]string) bool {
			d, has := digests[model]
			other, shares := digests[name]
			return has && (d != digest || !shares) || shares && other != digest
		}) {
			return name
		}
	}
	return model
}
