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
	f.Add(`{"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[1,3]},"v":{"dtype":"F9","shape":[2],"data_offsets":[3,5]}}`, uint16(5))
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
			e := opened.tensors[name]
			covered += e.end - e.begin
			got, err := s.Data(name)
			if bitsPerElement(e.dtype) == 0 {
				if err == nil {
					t.Errorf("%s of type %s was read", name, e.dtype)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
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
