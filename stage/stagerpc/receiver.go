package stagerpc

import (
	"fmt"
	"hash/crc32"
	"math"

	"github.com/triptych-serving/triptych/engine/tensor"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// trustedBytes is the memory an announcement alone can take; beyond it, memory grows with the bytes
// that arrive.
const trustedBytes = 4 << 20

// Receiver puts tensors together from chunks. It decides purely: the chunks come from elsewhere.
type Receiver struct {
	tensors []stage.NamedTensor
	sizes   []int64
	at      int // index of the tensor whose bytes are next
}

// NewReceiver checks an announcement; limit bounds its bytes in all. TensorInvalid.
func NewReceiver(specs []*tensorpb.TensorSpec, limit int64) (*Receiver, error) {
	if len(specs) > MaxTensors {
		return nil, invalid("", 0, fmt.Sprintf("at most %d tensors", MaxTensors), len(specs))
	}
	r := &Receiver{tensors: make([]stage.NamedTensor, len(specs)), sizes: make([]int64, len(specs))}
	total := int64(0)
	for i, s := range specs {
		t, err := fromSpec(s)
		if err != nil {
			return nil, err
		}
		if s.GetByteSize() > limit-total {
			return nil, invalid(s.GetName(), 0, fmt.Sprintf("at most %d bytes", limit-total), s.GetByteSize())
		}
		total += s.GetByteSize()
		r.tensors[i], r.sizes[i] = t, s.GetByteSize()
	}
	return r, nil
}

// fromSpec makes the tensor that a spec announces, without its data.
func fromSpec(s *tensorpb.TensorSpec) (stage.NamedTensor, error) {
	name := s.GetName()
	if name == "" || len(name) > MaxNameBytes {
		return stage.NamedTensor{}, invalid(name, 0, fmt.Sprintf("a name of 1 to %d bytes", MaxNameBytes), fmt.Sprintf("%d bytes", len(name)))
	}
	t := stage.NamedTensor{Name: name}
	for d, w := range wireTypes {
		if w == s.GetDataType() {
			t.DType = d
		}
	}
	if t.DType == tensor.Invalid {
		return t, invalid(name, 0, "data type FP32, FP16 or BF16", s.GetDataType())
	}
	if len(s.GetShape()) > MaxRank {
		return t, invalid(name, 0, fmt.Sprintf("at most %d dimensions", MaxRank), len(s.GetShape()))
	}
	size := int64(t.DType.Size())
	t.Shape = make(tensor.Shape, len(s.GetShape()))
	for i, d := range s.GetShape() {
		if d < 1 || d > math.MaxInt64/size || int64(int(d)) != d {
			return t, invalid(name, 0, "positive dimensions whose product fits", fmt.Sprint(s.GetShape()))
		}
		size *= d
		t.Shape[i] = int(d)
	}
	if s.GetByteSize() != size {
		return t, invalid(name, 0, fmt.Sprintf("byte_size %d for %v of %v", size, t.DType, t.Shape), s.GetByteSize())
	}
	return t, nil
}

// Done tells whether every byte has come.
func (r *Receiver) Done() bool { return r.at == len(r.tensors) }

// Add takes the next chunk; its data is copied. TensorInvalid, ChecksumMismatch; then the receiver
// is of no more use.
func (r *Receiver) Add(c *tensorpb.TensorChunk) error {
	data := c.GetData()
	if r.Done() {
		return invalid("", c.GetOffset(), "no more chunks", fmt.Sprintf("a chunk of tensor_index %d", c.GetTensorIndex()))
	}
	t, size := &r.tensors[r.at], r.sizes[r.at]
	have, n := int64(len(t.Data)), int64(len(data))
	switch {
	case c.GetTensorIndex() != uint32(r.at):
		return invalid(t.Name, have, fmt.Sprintf("tensor_index %d", r.at), c.GetTensorIndex())
	case c.GetOffset() != have:
		return invalid(t.Name, have, fmt.Sprintf("offset %d", have), c.GetOffset())
	case n == 0 || n > MaxChunkBytes:
		return invalid(t.Name, have, fmt.Sprintf("1 to %d bytes of data", MaxChunkBytes), n)
	case n > size-have:
		return invalid(t.Name, have, fmt.Sprintf("at most %d bytes of data", size-have), n)
	case c.GetLast() != (have+n == size):
		return invalid(t.Name, have, fmt.Sprintf("last = %v", have+n == size), c.GetLast())
	}
	if sum := crc32.Checksum(data, castagnoli); sum != c.GetCrc32C() {
		return broken(stage.ChecksumMismatch, t.Name, have, fmt.Sprintf("CRC-32C %08x", c.GetCrc32C()), fmt.Sprintf("%08x", sum))
	}
	t.Data = appendBounded(t.Data, data, size)
	if c.GetLast() {
		r.at++
	}
	return nil
}

// appendBounded appends like append, but memory is first trustedBytes or size, whichever is less,
// then doubles, and never exceeds size.
func appendBounded(buf, data []byte, size int64) []byte {
	if need := len(buf) + len(data); need > cap(buf) {
		grown := make([]byte, len(buf), min(max(2*int64(cap(buf)), int64(need), trustedBytes), size))
		copy(grown, buf)
		buf = grown
	}
	return append(buf, data...)
}

// Finish gives the tensors. TensorInvalid when bytes are missing.
func (r *Receiver) Finish() ([]stage.NamedTensor, error) {
	if !r.Done() {
		t := r.tensors[r.at]
		return nil, invalid(t.Name, int64(len(t.Data)), fmt.Sprintf("%d bytes", r.sizes[r.at]), "the end of the stream")
	}
	return r.tensors, nil
}
