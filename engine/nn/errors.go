package nn

import (
	"fmt"
	"strings"
)

// Fault says what is wrong with a tensor of a model file.
type Fault uint8

// The faults a declaration can find.
const (
	Missing     Fault = iota + 1 // the network needs it, the file does not have it
	Misshapen                    // it is there with another shape
	Unsupported                  // it is there in a type that cannot be read
	Surplus                      // it is there and the network has no use for it; no fault beside no other
)

// String names the fault as it reads in an error.
func (f Fault) String() string {
	switch f {
	case Missing:
		return "missing"
	case Misshapen:
		return "misshapen"
	case Unsupported:
		return "of an unsupported type"
	case Surplus:
		return "surplus"
	}
	return fmt.Sprintf("Fault(%d)", uint8(f))
}

// TensorError is one tensor of a model file that does not fit the network its config describes.
type TensorError struct {
	File     string // the file that has the tensor, or should have
	Tensor   string
	Fault    Fault
	Expected string
	Got      string
}

// Error reads "FILE: tensor NAME is misshapen: expected [64, 4, 3, 3], got [64, 9, 3, 3]".
func (e *TensorError) Error() string {
	return fmt.Sprintf("%s: tensor %.200q is %v: expected %s, got %s", e.File, e.Tensor, e.Fault, e.Expected, e.Got)
}

// TensorErrors is everything a declaration found wrong, in the order of the network, tensors that parameters are assembled from
// behind the others, and surplus ones last. errors.As finds each TensorError in it.
type TensorErrors []*TensorError

// shownErrors bounds the text: a file of another network differs in every tensor.
const shownErrors = 5

// Error shows the first few and the number of the others.
func (e TensorErrors) Error() string {
	var b strings.Builder
	for i, p := range e {
		if i == shownErrors {
			fmt.Fprintf(&b, "; and %d more", len(e)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p.Error())
	}
	return b.String()
}

// Unwrap gives every error to errors.Is and errors.As.
func (e TensorErrors) Unwrap() []error {
	out := make([]error, len(e))
	for i, p := range e {
		out[i] = p
	}
	return out
}
