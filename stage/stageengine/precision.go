package stageengine

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// ParsePrecision reads a type that a stage may keep its weights in: f32, f16, bf16, int8 or int4.
func ParsePrecision(name string) (tensor.DType, error) {
	t, ok := map[string]tensor.DType{"f32": tensor.F32, "f16": tensor.F16, "bf16": tensor.BF16, "int8": tensor.I8, "int4": tensor.I4}[name]
	if !ok {
		return t, fmt.Errorf("%q is not a precision, expected f32, f16, bf16, int8 or int4", name)
	}
	return t, nil
}
