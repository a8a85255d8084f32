package device

import (
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// Tape records the ops of one forward pass for fixed shapes. The first error sticks: later
// calls return zero arrays, and Err tells it. A recorded tape is read-only and may be run any
// number of times, also concurrently, each Run with its own scratch.
//
// A tape has two sections, each of which a device may submit as a whole (a CUDA graph, say). Ops that depend on nothing
// but fixed inputs (and parameters) are the first one, the prologue: they come first in Ops, and a Run executes them only
// when a fixed input was written since. All others are the second one.
type Tape struct {
	// KeepMarks turns every Mark into an output, for tests that look for a first difference.
	KeepMarks bool

	manifest  *Manifest   // all parameters
	manifests []*Manifest // whose they are, in order
	ops       []Op
	prologue  int            // how many of ops, from the first
	arrays    []tensor.Shape // by ID-1: the shape an array was made with
	fixed     []bool         // by ID-1: depends on fixed inputs alone
	inputs    []Named
	outputs   []Named
	adapted   map[Weight][]Adaptation
	err       error
}

// Named is an input or output of a tape.
type Named struct {
	Name  string
	Array Array
	IDs   bool // token ids (int32), written by Run.WriteIDs
	Fixed bool // written less often than the tape is run
}

// NewTape starts a tape over the parameters of m, and of further manifests, which are loaded by themselves: those of adapters beside
// a network's.
func NewTape(m *Manifest, further ...*Manifest) *Tape {
	t := &Tape{manifest: m, manifests: append([]*Manifest{m}, further...)}
	if len(further) > 0 {
		t.manifest = &Manifest{}
		for _, m := range t.manifests {
			t.manifest.Params = append(t.manifest.Params, m.Params...)
		}
	}
	return t
}

// Further is a parameter of the i-th further manifest as ops of the tape name it; no parameter stays none.
func (t *Tape) Further(i int, w Weight) Weight {
	if w.Present() {
		for _, m := range t.manifests[:i+1] {
			w.n += len(m.Params)
		}
	}
	return w
}

// Err is the first error of recording.
func (t *Tape) Err() error { return t.err }

// Ops lists the computations in order, the prologue before the others. With Prologue, Arrays, Inputs,
// Outputs and Manifest it is what a device reads to plan and run.
func (t *Tape) Ops() []Op { return t.ops }

// Prologue is how many of Ops, from the first, depend on fixed inputs alone.
func (t *Tape) Prologue() int { return t.prologue }

// Arrays gives the shape of every array, by ID-1.
func (t *Tape) Arrays() []tensor.Shape { return t.arrays }

// Inputs lists the declared inputs.
func (t *Tape) Inputs() []Named { return t.inputs }

// Outputs lists the declared outputs.
func (t *Tape) Outputs() []Named { return t.outputs }

// Manifest is the parameters the tape's ops refer to: those of all Manifests, one behind the other.
func (t *Tape) Manifest() *Manifest { return t.manifest }

// Manifests are what NewTape was given.
func (t *Tape) Manifests() []*Manifest { return t.manifests }

// Input declares a float32 input.
func (t *Tape) Input(name string, shape ...int) Array {
	a := t.array(shape...)
	t.inputs = append(t.inputs, Named{Name: name, Array: a})
	return a
}

// FixedInput declares a float32 input that is written less often than the tape is run: what is computed
// from fixed inputs alone is kept in scratch between executions.
func (t *Tape) FixedInput(name string, shape ...int) Array {
	a := t.array(shape...)
	if t.err == nil {
		t.inputs = append(t.inputs, Named{Name: name, Array: a, Fixed: true})
		t.fixed[a.ID-1] = true
	}
	return a
}

// IDs declares a token id input [B, T].
func (t *Tape) IDs(name string, batch, tokens int) Array {
	a := t.array(batch, tokens)
	t.inputs = append(t.inputs, Named{Name: name, Array: a, IDs: true})
	return a
}

// Output declares that a's value can be read after a run.
func (t *Tape) Output(name string, a Array) {
	if t.err == nil {
		t.outputs = append(t.outputs, Named{Name: name, Array: a})
	}
}

// Mark names an inner value; it becomes an output when KeepMarks is set.
func (t *Tape) Mark(name string, a Array) {
	if t.KeepMarks {
		t.Output(name, a)
	}
}

// Reshape views a with another shape of as many elements; no data moves.
func (t *Tape) Reshape(a Array, shape ...int) Array {
	if t.err != nil {
		return Array{}
	}
	n, _ := a.Shape.Elems()
	if m, ok := tensor.Shape(shape).Elems(); !ok || m != n {
		t.fail("reshape", "%v to %v", a.Shape, tensor.Shape(shape))
		return Array{}
	}
	return Array{ID: a.ID, Shape: append(tensor.Shape(nil), shape...)}
}

func (t *Tape) array(shape ...int) Array {
	if t.err != nil {
		return Array{}
	}
	s := append(tensor.Shape(nil), shape...)
	if n, ok := s.Elems(); !ok || n == 0 {
		t.fail("array", "shape %v has no elements", s)
		return Array{}
	}
	t.arrays, t.fixed = append(t.arrays, s), append(t.fixed, false)
	return Array{ID: len(t.arrays), Shape: s}
}

// push appends op to the prologue if its operands are fixed, else to the others.
func (t *Tape) push(op Op, out Array) Array {
	if t.err != nil {
		return out
	}
	in, _ := op.operands()
	if slices.ContainsFunc(in, func(a Array) bool { return a.Present() && !t.fixed[a.ID-1] }) {
		t.ops = append(t.ops, op)
		return out
	}
	t.ops = slices.Insert(t.ops, t.prologue, op)
	t.prologue++
	t.fixed[out.ID-1] = true
	return out
}

func (t *Tape) fail(op, format string, args ...any) {
	if t.err == nil {
		t.err = fmt.Errorf("%s: %s", op, fmt.Sprintf(format, args...))
	}
}

// Fail records an error of the network itself, unless one is already there.
func (t *Tape) Fail(err error) {
	if t.err == nil {
		t.err = err
	}
}
