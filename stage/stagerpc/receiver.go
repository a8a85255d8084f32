package stagerpc

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/triptych-serving/triptych/engine/tensor"
	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// trustedBytes is the memory an announcement alone can take; beyond it, memory grows with the bytes
// that arrive.
const trustedBytes = 4 << 20

// Receiver puts values together from chunks. It decides purely: the chunks come from elsewhere.
type Receiver struct {
	values stage.Values
	sizes  []int64
	sums   [][]byte
	at     int // index of the value whose bytes are next
}

// NewReceiver checks an announcement. TensorInvalid, or InvalidField for the size of a file.
func NewReceiver(specs []*stagepb.ValueSpec) (*Receiver, error) {
	if len(specs) > MaxValues {
		return nil, invalid("", 0, fmt.Sprintf("at most %d tensors", MaxValues), len(specs))
	}
	r := &Receiver{values: make(stage.Values, len(specs)), sizes: make([]int64, len(specs)), sums: make([][]byte, len(specs))}
	left := int64(MaxBytes)
	for i, s := range specs {
		v, size, err := fromSpec(s)
		if err != nil {
			return nil, err
		}
		if size > left {
			return nil, invalid(s.GetName(), 0, fmt.Sprintf("at most %d bytes", left), size)
		}
		left -= size
		r.values[i], r.sizes[i], r.sums[i] = v, size, s.GetSha256()
	}
	return r, nil
}

// fromSpec makes the value that a spec announces, without its bytes, and tells their number.
func fromSpec(s *stagepb.ValueSpec) (v stage.Value, size int64, err error) {
	v = stage.Value{Name: s.GetName(), Unit: int(s.GetUnit()), Units: int(s.GetUnits())}
	switch n := len(s.GetSha256()); {
	case v.Name == "" || len(v.Name) > MaxNameBytes:
		return v, 0, invalid(v.Name, 0, fmt.Sprintf("a name of 1 to %d bytes", MaxNameBytes), fmt.Sprintf("%d bytes", len(v.Name)))
	case n != 0 && n != sha256.Size:
		return v, 0, invalid(v.Name, 0, fmt.Sprintf("a hash of %d bytes", sha256.Size), n)
	case v.Unit < 0 || v.Unit >= max(1, v.Units) || v.Units < 0:
		return v, 0, invalid(v.Name, 0, "a unit of those there are", fmt.Sprintf("unit %d of %d", v.Unit, v.Units))
	}
	switch {
	case s.GetFile() != nil:
		v.File, size, err = fromFileSpec(v.Name, s.GetFile())
	case s.GetTensor() != nil:
		v.Tensor, size, err = fromTensorSpec(v.Name, s.GetTensor())
	default:
		err = invalid(v.Name, 0, "a tensor or a file", "neither")
	}
	return v, size, err
}

func fromFileSpec(name string, s *stagepb.FileSpec) (*stage.File, int64, error) {
	if len(s.GetMedia()) > maxMediaBytes || s.GetWidthPx() < 0 || s.GetHeightPx() < 0 {
		return nil, 0, invalid(name, 0, "a file with a media type", fmt.Sprintf("%q of %d x %d pixels", s.GetMedia(), s.GetWidthPx(), s.GetHeightPx()))
	}
	if size := s.GetByteSize(); size < 1 || size > MaxFileBytes {
		return nil, 0, stage.Invalid(stage.InvalidField, name, fmt.Sprintf("%d bytes", size), fmt.Sprintf("1 to %d bytes", MaxFileBytes))
	}
	return &stage.File{Media: s.GetMedia(), WidthPx: int(s.GetWidthPx()), HeightPx: int(s.GetHeightPx())}, s.GetByteSize(), nil
}

func fromTensorSpec(name string, s *tensorpb.TensorSpec) (t tensor.Tensor, size int64, err error) {
	if t.DType = keyOf(wireTypes, s.GetDataType()); t.DType == tensor.Invalid {
		return t, 0, invalid(name, 0, "data type FP32, FP16 or BF16", s.GetDataType())
	}
	if len(s.GetShape()) > MaxRank {
		return t, 0, invalid(name, 0, fmt.Sprintf("at most %d dimensions", MaxRank), len(s.GetShape()))
	}
	size = int64(t.DType.Size())
	t.Shape = make(tensor.Shape, len(s.GetShape()))
	for i, d := range s.GetShape() {
		if d < 1 || d > math.MaxInt64/size || int64(int(d)) != d {
			return t, 0, invalid(name, 0, "positive dimensions whose product fits", fmt.Sprint(s.GetShape()))
		}
		size *= d
		t.Shape[i] = int(d)
	}
	switch {
	case s.GetByteSize() != size:
		return t, 0, invalid(name, 0, fmt.Sprintf("byte_size %d for %v of %v", size, t.DType, t.Shape), s.GetByteSize())
	case size > MaxTensorBytes:
		return t, 0, invalid(name, 0, fmt.Sprintf("at most %d bytes", MaxTensorBytes), size)
	}
	return t, size, nil
}

// Have puts in the bytes of a value that need not come. They are as many as were announced.
func (r *Receiver) Have(i int, data []byte) {
	if int64(len(data)) == r.sizes[i] {
		*bytesOf(&r.values[i]) = data
	}
}

// Wanted are the indices of the values that lack bytes.
func (r *Receiver) Wanted() (wanted []uint32) {
	for i := range r.values {
		if !r.full(i) {
			wanted = append(wanted, uint32(i))
		}
	}
	return wanted
}

// full tells whether every byte of a value has come; none is empty.
func (r *Receiver) full(i int) bool { return int64(len(*bytesOf(&r.values[i]))) == r.sizes[i] }

// Done tells whether every byte has come.
func (r *Receiver) Done() bool {
	for r.at < len(r.values) && r.full(r.at) {
		r.at++
	}
	return r.at == len(r.values)
}

// Add takes the next chunk; its data is copied. TensorInvalid, ChecksumMismatch; then the receiver
// is of no more use.
func (r *Receiver) Add(c *tensorpb.TensorChunk) error {
	data := c.GetData()
	if r.Done() {
		return invalid("", c.GetOffset(), "no more chunks", fmt.Sprintf("a chunk of tensor_index %d", c.GetTensorIndex()))
	}
	buf, name, size := bytesOf(&r.values[r.at]), r.values[r.at].Name, r.sizes[r.at]
	have, n := int64(len(*buf)), int64(len(data))
	switch {
	case c.GetTensorIndex() != uint32(r.at):
		return invalid(name, have, fmt.Sprintf("tensor_index %d", r.at), c.GetTensorIndex())
	case c.GetOffset() != have:
		return invalid(name, have, fmt.Sprintf("offset %d", have), c.GetOffset())
	case n == 0 || n > MaxChunkBytes:
		return invalid(name, have, fmt.Sprintf("1 to %d bytes of data", MaxChunkBytes), n)
	case n > size-have:
		return invalid(name, have, fmt.Sprintf("at most %d bytes of data", size-have), n)
	case c.GetLast() != (have+n == size):
		return invalid(name, have, fmt.Sprintf("last = %v", have+n == size), c.GetLast())
	}
	if sum := crc32.Checksum(data, castagnoli); sum != c.GetCrc32C() {
		return broken(stage.ChecksumMismatch, name, have, fmt.Sprintf("CRC-32C %08x", c.GetCrc32C()), fmt.Sprintf("%08x", sum))
	}
	*buf = appendBounded(*buf, data, size)
	if want := r.sums[r.at]; len(want) > 0 && r.full(r.at) {
		if sum := sha256.Sum256(*buf); !bytes.Equal(sum[:], want) {
			return broken(stage.ChecksumMismatch, name, 0, fmt.Sprintf("SHA-256 %x", want), fmt.Sprintf("%x", sum))
		}
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

// Finish gives the values. TensorInvalid when bytes are missing.
func (r *Receiver) Finish() (stage.Values, error) {
	if !r.Done() {
		v := &r.values[r.at]
		return nil, invalid(v.Name, int64(len(*bytesOf(v))), fmt.Sprintf("%d bytes", r.sizes[r.at]), "the end of the stream")
	}
	return r.values, nil
}
