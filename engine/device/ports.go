package device

import (
	"fmt"
	"math"
	"slices"
)

// FindInput gives the float32 input of a name, if it has so many values. The error is a FieldError, as are those below.
func (t *Tape) FindInput(name string, values int) (Named, error) {
	in, err := find("input", t.inputs, name, values)
	if err == nil && in.IDs {
		err = &FieldError{Field: "input " + name, Expected: "ids", Got: "float values"}
	}
	return in, err
}

// FindIDs gives the id input of a name, if it has so many ids and each is a row of everything that they are looked up in.
func (t *Tape) FindIDs(name string, ids []int32) (Named, error) {
	in, err := find("input", t.inputs, name, len(ids))
	if err != nil {
		return in, err
	}
	if !in.IDs {
		return in, &FieldError{Field: "input " + name, Expected: "float values", Got: "ids"}
	}
	rows := math.MaxInt // of the smallest
	for _, op := range t.ops {
		if e, ok := op.(*Embed); ok && e.IDs.ID == in.Array.ID {
			rows = min(rows, e.Rows(t.manifest))
		}
	}
	for i, id := range ids {
		if id < 0 || int(id) >= rows {
			return in, &FieldError{Field: "input " + name, Expected: fmt.Sprintf("ids from 0 to %d", rows-1), Got: fmt.Sprintf("%d at %d", id, i)}
		}
	}
	return in, nil
}

// FindOutput gives the output of a name, if it has so many values.
func (t *Tape) FindOutput(name string, values int) (Named, error) {
	return find("output", t.outputs, name, values)
}

func find(kind string, ports []Named, name string, values int) (Named, error) {
	refuse := func(expected, got string) error { return &FieldError{kind + " " + name, expected, got} }
	i := slices.IndexFunc(ports, func(n Named) bool { return n.Name == name })
	if i < 0 {
		return Named{}, refuse("an "+kind+" of the tape", "an unknown name")
	}
	if want, _ := ports[i].Array.Shape.Elems(); values != want {
		return Named{}, refuse(fmt.Sprintf("%d values of %v", want, ports[i].Array.Shape), fmt.Sprint(values))
	}
	return ports[i], nil
}
