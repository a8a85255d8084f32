package stage

import (
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Value is one named thing that turns hand on: a tensor of any rank, or a file. One of the two is set.
type Value struct {
	Name   string
	Tensor tensor.Tensor
	File   *File
	// Unit counts from 0 the pieces that a value comes in, of Units; both are 0 of a value that comes whole.
	Unit, Units int
}

// File is a file as users have it: a photo that is sent, a picture that is made.
type File struct {
	Media             string // "image/png"
	WidthPx, HeightPx int    // of an image, in pixels; 0 while nobody has looked
	Data              []byte
}

// Values are named values, each name once, but for the units of one.
type Values []Value

// Get is the value of a name.
func (v Values) Get(name string) (Value, bool) {
	return first(v, func(v Value) bool { return v.Name == name })
}

// Has reports whether there is a value of a name.
func (v Values) Has(name string) bool {
	_, ok := v.Get(name)
	return ok
}
