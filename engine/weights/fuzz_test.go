package weights

import (
	"bytes"
	"errors"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// FuzzHeader: whatever the header, a file is refused with an Error or every byte of its data
// belongs to exactly one tensor of the right size.
func FuzzHeader(f *testing.F) {
	f.Add(`{"__metadata__":{"format":"pt"},"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"F16","shape":[2,1],"data_offsets":[3,7]}}`, uint16(7))
	f.Add(`{"t":{"dtype":"F4","shape":[2,8],"data_offsets":[0,8]},"none":{"dtype":"I64","shape":[0],"data_offsets":[8,8]}}`, uint16(8))
	f.Add(`{"t":{"dtype":"F64","shape":[1152921504606846976],"data_offsets":[0,8],"x":[{}]}}`, uint16(8))
	f.Add(`{"u":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"t":{"dtype":"F64","shape":[2],"data_offsets":[3,19]}}`, uint16(19))
	f.Fuzz(func(t *testing.T, header string, dataLen uint16) {
		data := built(header, make([]byte, dataLen))
		opened, err := newFile("fuzz", bytes.NewReader(data), int64(len(data)), false)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.File != "fuzz" || e.Expected == "" || e.Got == "" || len(err.Error()) > 5000 {
				t.Errorf("%T %v", err, err)
			}
			return
		}
		s := &Set{files: []*file{opened}, owners: map[string]*file{}}
		covered := opened.start
		for name := range opened.tensors {
			s.owners[name] = opened
		}
		for _, name := range s.Names() {
			got, err := s.Data(name)
			if err != nil {
				t.Fatal(err)
			}
			covered += int64(len(got))
			if s.TypeName(name) == float64s {
				covered += int64(len(got)) // half of what was read
			}
			dtype, shape, _ := s.Info(name)
			if dtype != tensor.Invalid {
				if err := (tensor.Tensor{DType: dtype, Shape: shape, Data: got}).Validate(); err != nil {
					t.Error(err)
				}
			}
		}
		if covered != int64(len(data)) {
			t.Errorf("%d of %d bytes covered", covered, len(data))
		}
	})
}
