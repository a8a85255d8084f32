package device

import (
	"errors"
	"slices"
	"testing"
)

// A shape that comes again is not recorded again, unless many others came since; an error is.
func TestTapes(t *testing.T) {
	var (
		tapes    Tapes[int]
		recorded []int
	)
	of := func(shape int) *Tape {
		t.Helper()
		tape, err := tapes.Of(shape, func() (*Tape, error) {
			recorded = append(recorded, shape)
			return NewTape(&Manifest{}), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return tape
	}
	want := func(what string, want ...int) {
		t.Helper()
		if !slices.Equal(recorded, want) {
			t.Errorf("%s: recorded %v, want %v", what, recorded, want)
		}
		recorded = nil
	}
	first := of(0)
	if of(0) != first {
		t.Error("another tape of the same shape")
	}
	want("the same twice", 0)
	for shape := 1; shape < maxTapes; shape++ {
		of(shape)
	}
	want("others", 1, 2, 3, 4, 5, 6, 7)
	if of(0) != first || of(1) == first {
		t.Error("not the tape of its shape")
	}
	want("all of them remembered")
	of(100) // instead of 2, which was not used for longest
	of(0)
	of(1)
	want("one more", 100)
	of(2)
	want("the one it replaced", 2)

	fault := errors.New("fault")
	for range 2 {
		if tape, err := tapes.Of(-1, func() (*Tape, error) { return nil, fault }); tape != nil || !errors.Is(err, fault) {
			t.Errorf("%v, %v", tape, err)
		}
	}
	if of(-1) == nil {
		t.Error("no tape behind an error")
	}
	want("behind an error", -1)
}
