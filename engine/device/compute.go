package device

import (
	"errors"
	"fmt"
)

// Compute is the type of the factors that a run multiplies in Gemm, Conv2D and Attention: what is of another type is rounded to
// it, to nearest even, where it is multiplied. Sums, arrays and all other ops are float32, and parameters are kept as a
// manifest says. Where nothing is gained by it a device may multiply in a wider type.
type Compute uint8

// The types. A device that does not have one says so when a run is planned; every device has ComputeF32.
const (
	ComputeF32  Compute = iota // float32
	ComputeBF16                // bfloat16, 8 significant bits
)

func (c Compute) String() string {
	switch c {
	case ComputeF32:
		return "f32"
	case ComputeBF16:
		return "bf16"
	}
	return fmt.Sprintf("Compute(%d)", uint8(c))
}

// ParseCompute reads a Compute. The error is a FieldError.
func ParseCompute(name string) (Compute, error) {
	for _, c := range []Compute{ComputeF32, ComputeBF16} {
		if c.String() == name {
			return c, nil
		}
	}
	return ComputeF32, &FieldError{Field: "compute type", Expected: "f32 or bf16", Got: fmt.Sprintf("%q", name)}
}

// Computes tells whether a device has a type. The error is an UnsupportedError, or wraps ErrUnsupported.
func Computes(p RunPlanner, c Compute) error {
	_, err := p.ScratchBytes(NewTape(&Manifest{}), RunOptions{Compute: c})
	var unsupported *UnsupportedError
	if errors.As(err, &unsupported) {
		return unsupported
	}
	return err
}
