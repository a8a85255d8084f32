package stage

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Turn is the turn of a name.
func (r Recipe) Turn(name string) (Turn, bool) {
	return first(r.Turns, func(t Turn) bool { return t.Name == name })
}

// Complete checks options of some names against their specs, and adds the defaults of those that are not given. One that is
// none of them is InvalidField; other errors are those of OptionSpec.Check, or of Missing.
func (r Recipe) Complete(names []string, given Options) (Options, error) {
	for name, o := range given {
		if !slices.Contains(names, name) {
			return nil, Invalid(InvalidField, name, o, "only options that are read here: "+strings.Join(names, ", "))
		}
	}
	out := Options{}
	for _, name := range names {
		spec, known := r.Option(name)
		o, said := given[name]
		switch {
		case !known:
			continue
		case said:
			if err := spec.Check(name, o); err != nil {
				return nil, err
			}
			out[name] = o
		case spec.Default != Option{}:
			out[name] = spec.Default
		case spec.Problem != "":
			return nil, spec.Missing(name)
		}
	}
	return out, nil
}

// Check refuses values that are not those of the ports: others, missing ones, one that comes twice but for its units, files in the
// place of tensors and the other way round, and tensors of other shapes or of fewer bytes. A name in the shapes stands for one
// size wherever it is. InvalidField, TensorInvalid.
func Check(ports []Port, values Values) error {
	var names []string
	for _, p := range ports {
		names = append(names, p.Name)
		if !p.Optional && !values.Has(p.Name) {
			return Invalid(InvalidField, p.Name, "nothing", p.expected())
		}
	}
	type piece struct {
		name string
		unit int
	}
	sizes, seen := map[string]int{}, map[piece]bool{}
	for _, v := range values {
		i := slices.Index(names, v.Name)
		at := piece{name: v.Name}
		if i >= 0 && ports[i].Units != "" {
			at.unit = v.Unit
		}
		if i < 0 || seen[at] {
			return Invalid(InvalidField, v.Name, "a value", "each value that is taken here once: "+strings.Join(names, ", "))
		}
		seen[at] = true
		if err := ports[i].check(v, sizes); err != nil {
			return err
		}
	}
	return nil
}

func (p Port) check(v Value, sizes map[string]int) error {
	if p.Media != "" {
		if v.File == nil {
			return Invalid(InvalidField, p.Name, "a tensor", p.expected())
		}
		if ok, err := path.Match(p.Media, v.File.Media); err != nil || !ok {
			return Invalid(InvalidField, p.Name, v.File.Media, p.expected())
		}
		return nil
	}
	if v.File != nil {
		return Invalid(InvalidField, p.Name, "a file", p.expected())
	}
	fits := len(v.Tensor.Shape) == len(p.Shape) && v.Tensor.Validate() == nil
	for i := 0; fits && i < len(p.Shape); i++ {
		size, err := strconv.Atoi(p.Shape[i])
		if err != nil {
			if sizes[p.Shape[i]] == 0 {
				sizes[p.Shape[i]] = v.Tensor.Shape[i]
			}
			size = sizes[p.Shape[i]]
		}
		fits = size > 0 && v.Tensor.Shape[i] == size
	}
	if !fits {
		return Invalid(TensorInvalid, p.Name, v.Tensor.Shape, p.expected())
	}
	return nil
}

// expected says in words what the port takes.
func (p Port) expected() string {
	if p.Media != "" {
		return "a file of type " + p.Media
	}
	return fmt.Sprintf("a tensor [%s]", strings.Join(p.Shape, ", "))
}
