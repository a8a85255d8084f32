package sampler

import "fmt"

// State is a run between two evaluations. It is a value: its arrays are never written again.
type State struct {
	Step    int       // the evaluation that comes next, from 0
	Latents []float32 // the noisy sample
	history []NamedArray
}

// NamedArray is one array of a stored state.
type NamedArray struct {
	Name string
	Data []float32
}

// latentsName is the array every state has.
const latentsName = "latents"

// Tensors is everything of the state but Step, to be stored and given to Restore. All arrays are of
// one length. They are the state's own and must not be written.
func (s State) Tensors() []NamedArray {
	return append([]NamedArray{{Name: latentsName, Data: s.Latents}}, s.history...)
}

// Restore is the state that was stored before evaluation step (Evaluations for a finished one), in
// any order of its arrays, which it keeps. A state that is not one of this sampler's at this step
// gives a *RestoreError.
func (s *Sampler) Restore(step int, tensors []NamedArray) (State, error) {
	fail := func(reason string, args ...any) (State, error) {
		return State{}, &RestoreError{Sampler: s.name, Step: step, Reason: fmt.Sprintf(reason, args...)}
	}
	if step < s.first || step > s.Evaluations() {
		return fail("expected a step from %d to %d", s.first, s.Evaluations())
	}
	names := append([]string{latentsName}, s.history(step)...)
	if len(tensors) != len(names) {
		return fail("got %d arrays, expected %d: %q", len(tensors), len(names), names)
	}
	ordered := make([]NamedArray, len(names))
	for i, name := range names {
		data, found := find(tensors, name)
		switch {
		case !found:
			return fail("no array %q among its %d", name, len(tensors))
		case len(data) == 0:
			return fail("array %q is empty", name)
		case i > 0 && len(data) != len(ordered[0].Data):
			return fail("array %q has %d elements, expected %d as in the latents", name, len(data), len(ordered[0].Data))
		}
		ordered[i] = NamedArray{Name: name, Data: data}
	}
	return State{Step: step, Latents: ordered[0].Data, history: ordered[1:]}, nil
}

func find(tensors []NamedArray, name string) ([]float32, bool) {
	for _, t := range tensors {
		if t.Name == name {
			return t.Data, true
		}
	}
	return nil, false
}
