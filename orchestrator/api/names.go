package api

import (
	"fmt"
	"maps"
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// rename gives options by their choices what a request says by other names. A name may say a choice of a further option, which the request may
// say as well and not otherwise.
func rename(r stage.Recipe, given stage.Options) error {
	for _, spec := range r.Options {
		o, said := given[spec.Name]
		if !said {
			continue
		}
		named, others := spec.Named(o)
		given[spec.Name] = named
		for _, name := range slices.Sorted(maps.Keys(others)) {
			other, _ := r.Option(name)
			if v, both := given[name]; both {
				if same, _ := other.Named(v); same != stage.TextOption(others[name]) {
					return stage.Invalid(stage.InvalidField, fieldOf(name), v, fmt.Sprintf("%s, as %s %q says", others[name], fieldOf(spec.Name), o))
				}
			}
			given[name] = stage.TextOption(others[name])
		}
	}
	return nil
}
