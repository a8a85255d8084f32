package torchfile

import (
	"fmt"
	"slices"
	"strings"
)

// tensors names the tensors in dicts below a value. Each dict is walked once, under the first of its names; of objects only a
// torch.nn.ParameterDict is looked into.
func (m *machine) tensors(root any) ([]Tensor, error) {
	all, err := m.measure(root)
	if err != nil {
		return nil, err
	}
	type place struct {
		name  string
		value any
	}
	var found []Tensor
	todo, seen, names := []place{{"", root}}, map[any]bool{}, map[string]bool{}
	for len(todo) > 0 && m.err == nil {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		switch v := at.value.(type) {
		case *view:
			if at.name == "" {
				at.name = "tensor"
			}
			if names[at.name] {
				return nil, &Error{Tensor: at.name, Expected: "each name once", Got: "it twice"}
			}
			names[at.name] = true
			found = append(found, v.tensor(at.name))
		case *opaque:
			if state, ok := v.state.(*dict); ok && v.class.name == "ParameterDict" && strings.HasPrefix(v.class.module, "torch.nn.modules") {
				todo = append(todo, place{at.name, state.get("_parameters")})
			}
		case *dict:
			if seen[v] {
				continue
			}
			seen[v] = true
			for i, key := range slices.Backward(v.keys) { // so that the first is walked first
				name := spell(key)
				if at.name != "" {
					name = at.name + "." + name
				}
				if len(name) > maxName {
					m.fail(fmt.Sprintf("names of at most %d bytes", maxName), fmt.Sprintf("one of %d", len(name)))
				}
				m.charge(container + len(name))
				if m.err != nil {
					return nil, m.err
				}
				todo = append(todo, place{name, v.values[i]})
			}
		}
	}
	switch top, isObject := root.(*opaque); {
	case m.err != nil:
		return nil, m.err
	case len(found) > 0:
		return found, nil
	case isObject && all > 0:
		return nil, refuse("a dict of tensors (a state_dict)", "a whole module of class "+top.class.String()+", whose tensors lie in the state of objects")
	case all > 0:
		return nil, refuse("a dict of tensors (a state_dict)", fmt.Sprintf("%s with %d tensors in lists or objects (a whole module or a hypernetwork)", describe(root), all))
	}
	return nil, refuse("a dict of tensors (a state_dict)", describe(root)+" without tensors")
}

// measure counts the tensors below a value and limits the depth. Each value is looked at once, so that shared parts do not
// multiply and cycles end.
func (m *machine) measure(root any) (tensors int, err error) {
	seen, level := map[any]bool{}, []any{root}
	for depth := 0; len(level) > 0; depth++ {
		if depth > maxDepth {
			return 0, refuse(fmt.Sprintf("values at most %d deep in one another", maxDepth), "deeper ones")
		}
		var next []any
		for _, v := range level {
			switch v.(type) {
			case *view, *list, *tuple, *dict, *opaque:
			default:
				continue
			}
			if seen[v] {
				continue
			}
			seen[v] = true
			if _, ok := v.(*view); ok {
				tensors++
			}
			next = append(next, parts(v)...)
		}
		level = next
	}
	return tensors, nil
}

func (v *view) tensor(name string) Tensor {
	data := v.storage.data
	if skip := v.offset * itemBytes(v.dtype); skip <= data.Size { // an empty tensor may begin anywhere
		data.Offset, data.Size = data.Offset+skip, data.Size-skip
	}
	return Tensor{Name: name, DType: v.dtype, Shape: v.shape, Strides: v.strides, Data: data}
}
