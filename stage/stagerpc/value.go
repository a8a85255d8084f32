package stagerpc

import (
	"crypto/sha256"
	"fmt"
	"hash/crc32"

	"github.com/triptych-serving/triptych/engine/tensor"
	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// wireTypes are the element types the wire has; others are refused.
var wireTypes = map[tensor.DType]tensorpb.DataType{
	tensor.F32:  tensorpb.DataType_DATA_TYPE_FP32,
	tensor.F16:  tensorpb.DataType_DATA_TYPE_FP16,
	tensor.BF16: tensorpb.DataType_DATA_TYPE_BF16,
}

// broken is a tensor, or another run of bytes, whose announcement or chunks break the protocol.
func broken(reason stage.Reason, name string, offset int64, expected, got any) *stage.Error {
	text := [...]string{clip(name), fmt.Sprint(offset), fmt.Sprint(expected), fmt.Sprint(got)}
	return &stage.Error{
		Reason:  reason,
		Message: fmt.Sprintf("tensor %q at byte %s: expected %s, got %s", text[0], text[1], text[2], text[3]),
		Metadata: map[string]string{
			"tensor": text[0], "offset": text[1], "expected": text[2], "got": text[3],
		},
	}
}

func invalid(name string, offset int64, expected, got any) *stage.Error {
	return broken(stage.TensorInvalid, name, offset, expected, got)
}

// bytesOf are the bytes of a value.
func bytesOf(v *stage.Value) *[]byte {
	if v.File != nil {
		return &v.File.Data
	}
	return &v.Tensor.Data
}

// Announce gives the specs of values. TensorInvalid, or InvalidField of files, for what a Receiver would refuse.
func Announce(values stage.Values) ([]*stagepb.ValueSpec, error) {
	specs := make([]*stagepb.ValueSpec, len(values))
	for i, v := range values {
		specs[i] = &stagepb.ValueSpec{Name: clip(v.Name), Unit: saturate(v.Unit), Units: saturate(v.Units)}
		if f := v.File; f != nil {
			specs[i].Form = &stagepb.ValueSpec_File{File: &stagepb.FileSpec{
				Media: clip(f.Media), WidthPx: saturate(f.WidthPx), HeightPx: saturate(f.HeightPx), ByteSize: int64(len(f.Data)),
			}}
			continue
		}
		t := v.Tensor
		if err := t.Validate(); err != nil {
			return nil, invalid(v.Name, 0, "as many bytes as type and shape ask for",
				fmt.Sprintf("%d bytes for %v of %v", len(t.Data), t.DType, t.Shape))
		}
		shape := make([]int64, len(t.Shape))
		for j, d := range t.Shape {
			shape[j] = int64(d)
		}
		specs[i].Form = &stagepb.ValueSpec_Tensor{Tensor: &tensorpb.TensorSpec{
			DataType: wireTypes[t.DType], Shape: shape, ByteSize: int64(len(t.Data)),
		}}
	}
	if _, err := NewReceiver(specs); err != nil {
		return nil, err
	}
	return specs, nil
}

// announceKept announces values that a receiver may keep, by their hashes.
func announceKept(values stage.Values) ([]*stagepb.ValueSpec, error) {
	specs, err := Announce(values)
	for i, s := range specs {
		if data := *bytesOf(&values[i]); len(data) <= MaxKeptBytes {
			sum := sha256.Sum256(data)
			s.Sha256 = sum[:]
		}
	}
	return specs, err
}

// Send sends those values that are wanted of what Announce announced: chunks in order, which alias the values' data. The
// error is send's.
func Send(values stage.Values, wanted []uint32, send func(*tensorpb.TensorChunk) error) error {
	for _, i := range wanted {
		all := *bytesOf(&values[i])
		for offset := 0; offset < len(all); offset += ChunkBytes {
			end := min(offset+ChunkBytes, len(all))
			data := all[offset:end]
			err := send(&tensorpb.TensorChunk{
				TensorIndex: i, Offset: int64(offset), Last: end == len(all),
				Crc32C: crc32.Checksum(data, castagnoli), Data: data,
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// every is the indices of so many values.
func every(n int) []uint32 {
	all := make([]uint32, n)
	for i := range all {
		all[i] = uint32(i)
	}
	return all
}
