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

// Editions are what the services said of their parts of the model when it was asked for, by service.
func (m Model) Editions() map[residency.StageID]stage.Edition { return m.editions }

// OwnEdition is likewise what a service said of the model's own part, where another model's is used that is equal.
func (m Model) OwnEdition(id residency.StageID) stage.Edition { return m.own[id] }

// editions are those of the models that part names.
func (f *Fleet) editions(part func(stage.Kind) string) map[residency.StageID]stage.Edition {
	out := map[residency.StageID]stage.Edition{}
	for id, s := range f.members {
		if info, _ := s.last(); info != nil {
			for _, c := range info.Models {
				if c.Model == part(s.kind) {
					out[id] = c.Edition
				}
			}
		}
	}
	return out
}

// Anew is Model behind a look at every service that is there.
func (f *Fleet) Anew(ctx context.Context, name string) (Model, error) {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	before := map[*member]*stage.Info{}
	for _, m := range f.members {
		if info, up := m.last(); up {
			before[m] = info
			f.Ask(m.id)
		}
	}
	for {
		changed := f.next()
		maps.DeleteFunc(before, func(m *member, info *stage.Info) bool {
			now, up := m.last()
			return !up || now != info
		})
		if len(before) == 0 {
			return f.Model(ctx, name, infoTimeout)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Model{}, ctx.Err()
		}
	}
}

// differing says in words which services are known to have other files of a model than others of their kind.
func (f *Fleet) differing(model string) (out []string) {
	for _, kind := range stage.Kinds() {
		var have []string
		identities := map[string]bool{}
		for _, id := range slices.Sorted(maps.Keys(f.members)) {
			m := f.members[id]
			info, _ := m.last()
			if info == nil || m.kind != kind {
				continue
			}
			for _, c := range info.Models {
				if c.Model == model && c.Identity != "" {
					identities[c.Identity] = true
					have = append(have, fmt.Sprintf("%s has %s", id, c.Short()))
				}
			}
		}
		if len(identities) > 1 {
			out = append(out, fmt.Sprintf("the %v services have different files of it: %s", kind, strings.Join(have, ", ")))
		}
	}
	return out
}

// alike tells whether two infos of a service name the same models, and whether each is the same in them.
func alike(a, b *stage.Info) (names, all bool) {
	same := func(a, b stage.Component) bool {
		return a.Model == b.Model && (a.Problem == "") == (b.Problem == "")
	}
	names = slices.EqualFunc(a.Models, b.Models, same)
	return names, names && slices.EqualFunc(a.Models, b.Models, func(a, b stage.Component) bool {
		return a.Stamp == b.Stamp && a.WeightsBytes == b.WeightsBytes
	})
}
