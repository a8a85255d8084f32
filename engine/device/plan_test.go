package device

import (
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// An op takes the place of an operand that nobody reads any more, and of no other.
func TestPlanInPlace(t *testing.T) {
	var m Manifest
	vector := m.Add(Param{Name: "v", Layout: Vector, DType: tensor.F32, Shape: tensor.Shape{64}})
	tape := NewTape(&m)
	norm := func(x Array) Array { return tape.GroupNorm(GroupNorm{X: x, Gamma: vector, Beta: vector, Groups: 2}) }
	x := tape.Input("x", 1, 4, 64)
	a := norm(x)                         // x is an input: kept
	b := norm(a)                         // takes a's place
	c := tape.Activate(Activate{X: b})   // b is read again: kept
	d := tape.Concat(Concat{A: b, B: c}) // the end of b
	tape.Output("c", c)
	tape.Output("d", d)
	if tape.Err() != nil {
		t.Fatal(tape.Err())
	}
	p, err := PlanScratch(tape)
	if err != nil {
		t.Fatal(err)
	}
	at := func(v Array) int64 { return p.Offsets[v.ID-1] }
	if at(a) != at(b) || at(x) == at(a) || at(b) == at(c) {
		t.Errorf("offsets %v: want those of arrays %d and %d equal, %d and %d apart", p.Offsets, a.ID, b.ID, b.ID, c.ID)
	}
	if want := int64(4 * 4 * 64 * (1 + 1 + 1 + 2)); p.Bytes != want { // x, a and b, c, d
		t.Errorf("%d bytes, want %d", p.Bytes, want)
	}
}
