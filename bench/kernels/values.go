package kernels

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// period is how often values repeat: a prime, so that they repeat at no row of any shape.
const period = 4093

// value is the i-th of a row of values between -0.5 and 0.5, none of them denormal in any type: exactly a float16, and
// rounded down a bfloat16.
func value(i int) float32 {
	h := uint32(i%period) * 2654435761
	return (float32(h>>22) - 511.5) / 1024
}

func fill(v []float32) {
	for i := range v {
		v[i] = value(i)
	}
}

// values is a source of parameters.
type values struct{ manifest *device.Manifest }

// Section implements device.Source.
func (s values) Section(name string) (*io.SectionReader, error) {
	for _, p := range s.manifest.Params {
		if p.Name == name {
			data, err := bytesOf(p.DType, int(count(p.Shape)))
			return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), err
		}
	}
	return nil, fmt.Errorf("kernels: no parameter %q", name)
}

// bytesOf is n values as they are stored.
func bytesOf(t tensor.DType, n int) ([]byte, error) {
	size := t.Size()
	once := make([]byte, 0, period*size)
	for i := range period {
		v := math.Float32bits(value(i))
		switch t {
		case tensor.F32:
			once = binary.LittleEndian.AppendUint32(once, v)
		case tensor.BF16:
			once = binary.LittleEndian.AppendUint16(once, uint16(v>>16))
		case tensor.F16: // normal in both types, with at most 10 bits behind the first
			once = binary.LittleEndian.AppendUint16(once, uint16(v>>16&0x8000|(v>>23&0xff-112)<<10|v>>13&0x3ff))
		default:
			return nil, fmt.Errorf("kernels: weights stored as %v", t)
		}
	}
	out := make([]byte, n*size)
	for at := 0; at < len(out); {
		at += copy(out[at:], once)
	}
	return out, nil
}
