package stagerpc

import (
	"fmt"
	"hash/crc32"

	"github.com/triptych-serving/triptych/engine/tensor"
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

// Announce gives the specs of tensors. TensorInvalid for what a Receiver would refuse.
func Announce(tensors []stage.NamedTensor) ([]*tensorpb.TensorSpec, error) {
	specs := make([]*tensorpb.TensorSpec, len(tensors))
	for i, t := range tensors {
		if err := t.Validate(); err != nil {
			return nil, invalid(t.Name, 0, "as many bytes as type and shape ask for",
				fmt.Sprintf("%d bytes for %v of %v", len(t.Data), t.DType, t.Shape))
		}
		shape := make([]int64, len(t.Shape))
		for j, d := range t.Shape {
			shape[j] = int64(d)
		}
		specs[i] = &tensorpb.TensorSpec{
			Name: clip(t.Name), DataType: wireTypes[t.DType], Shape: shape, ByteSize: int64(len(t.Data)),
		}
	}
	if _, err := NewReceiver(specs, MaxTensorBytes); err != nil {
		return nil, err
	}
	return specs, nil
}

// announceResult announces what a stage made: what is wrong with it is the stage's own fault.
func announceResult(tensors []stage.NamedTensor) ([]*tensorpb.TensorSpec, error) {
	specs, err := Announce(tensors)
	if err != nil {
		return nil, fault("the stage made a tensor that cannot be sent", err)
	}
	return specs, nil
}

// SendTensors sends what Announce announced: chunks in order, which alias the tensors' data. The
// error is send's.
func SendTensors(tensors []stage.NamedTensor, send func(*tensorpb.TensorChunk) error) error {
	for i, t := range tensors {
		for offset := 0; offset < len(t.Data); offset += ChunkBytes {
			end := min(offset+ChunkBytes, len(t.Data))
			data := t.Data[offset:end]
			err := send(&tensorpb.TensorChunk{
				TensorIndex: uint32(i), Offset: int64(offset), Last: end == len(t.Data),
				Crc32C: crc32.Checksum(data, castagnoli), Data: data,
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// A form is what a tensor of a certain name has to look like.
type form struct {
	name string
	rank int
}

var (
	conditioningForm = form{name: hiddenStates, rank: 3}
	latentForm       = form{name: latents, rank: 4}
)

// check finds what is wrong with an announcement of exactly one tensor.
func (f form) check(specs ...*tensorpb.TensorSpec) error {
	if len(specs) != 1 {
		return invalid(f.name, 0, "1 tensor", fmt.Sprintf("%d tensors", len(specs)))
	}
	s := specs[0]
	if s.GetName() != f.name || s.GetDataType() != tensorpb.DataType_DATA_TYPE_FP32 || len(s.GetShape()) != f.rank {
		return invalid(f.name, 0, fmt.Sprintf("%q, %v of rank %d", f.name, tensorpb.DataType_DATA_TYPE_FP32, f.rank),
			fmt.Sprintf("%q, %v of shape %v", clip(s.GetName()), s.GetDataType(), s.GetShape()))
	}
	return nil
}
