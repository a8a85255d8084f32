package stagerpc_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/triptych-serving/triptych/engine/tensor"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"google.golang.org/protobuf/proto"
)

const fp32 = tensorpb.DataType_DATA_TYPE_FP32

func crc(data []byte) uint32 { return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) }

func spec(name string, shape ...int64) *tensorpb.TensorSpec {
	size := int64(4)
	for _, d := range shape {
		size *= d
	}
	return &tensorpb.TensorSpec{Name: name, DataType: fp32, Shape: shape, ByteSize: size}
}

func chunk(index uint32, offset int64, last bool, data []byte) *tensorpb.TensorChunk {
	return &tensorpb.TensorChunk{TensorIndex: index, Offset: offset, Last: last, Data: data, Crc32C: crc(data)}
}

// wantBroken checks that err is typed and tells what was expected.
func wantBroken(t *testing.T, err error, reason stage.Reason) {
	t.Helper()
	var e *stage.Error
	if !errors.As(err, &e) || e.Reason != reason {
		t.Fatalf("got %v (%s), expected %s", err, stage.ReasonOf(err), reason)
	}
	for _, key := range []string{"tensor", "offset", "expected", "got"} {
		if _, ok := e.Metadata[key]; !ok {
			t.Errorf("metadata %s is missing: %v", key, e.Metadata)
		}
	}
}

func TestTensorsSurvive(t *testing.T) {
	big := make([]float32, 700_000) // more than five chunks
	for i := range big {
		big[i] = float32(i)
	}
	tensors := []stage.NamedTensor{
		{Name: "big", Tensor: tensor.FromF32(big, 7, 100, 1000)},
		{Name: "scalar", Tensor: tensor.FromF32([]float32{3})},
		{Name: "half", Tensor: tensor.Tensor{DType: tensor.F16, Shape: tensor.Shape{3}, Data: []byte("abcdef")}},
		{Name: "brain", Tensor: tensor.Tensor{DType: tensor.BF16, Shape: tensor.Shape{1, 1}, Data: []byte("xy")}},
		{Name: "exact", Tensor: tensor.FromF32(make([]float32, stagerpc.ChunkBytes/4), stagerpc.ChunkBytes/4)},
	}
	specs, err := stagerpc.Announce(tensors)
	if err != nil {
		t.Fatal(err)
	}
	r, err := stagerpc.NewReceiver(specs, stagerpc.MaxTensorBytes)
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	err = stagerpc.SendTensors(tensors, func(c *tensorpb.TensorChunk) error {
		sent++
		if n := proto.Size(c); n > stagerpc.MaxChunkBytes {
			t.Errorf("a chunk of %d bytes", n)
		}
		return r.Add(c)
	})
	if err != nil || sent != 6+4 {
		t.Fatalf("%d chunks, %v", sent, err)
	}
	got, err := r.Finish()
	if err != nil {
		t.Fatal(err)
	}
	for i := range tensors {
		if got[i].Name != tensors[i].Name || got[i].DType != tensors[i].DType || !got[i].Shape.Equal(tensors[i].Shape) || !bytes.Equal(got[i].Data, tensors[i].Data) {
			t.Errorf("tensor %q does not survive", tensors[i].Name)
		}
	}
	stop := errors.New("stop")
	if err := stagerpc.SendTensors(tensors, func(*tensorpb.TensorChunk) error { return stop }); err != stop {
		t.Errorf("SendTensors gives %v for %v", err, stop)
	}
}

// TestChunkGolden pins the bytes of chunks on the wire; the checksums were computed apart, bit by bit.
func TestChunkGolden(t *testing.T) {
	var wire []byte
	tensors := []stage.NamedTensor{
		{Name: "a", Tensor: tensor.FromF32([]float32{1}, 1)},
		{Name: "b", Tensor: tensor.FromF32([]float32{2, 3}, 2)},
	}
	err := stagerpc.SendTensors(tensors, func(c *tensorpb.TensorChunk) (err error) {
		wire, err = proto.MarshalOptions{Deterministic: true}.MarshalAppend(wire, c)
		return err
	})
	const golden = "1dabc454dd2001" + "7a040000803f" + "0801" + "1d9c0315052001" + "7a080000004000004040"
	if got := hex.EncodeToString(wire); err != nil || got != golden {
		t.Errorf("chunks are %s, expected %s (%v)", got, golden, err)
	}
}

func TestAnnouncementsRefused(t *testing.T) {
	one := func(change func(*tensorpb.TensorSpec)) []*tensorpb.TensorSpec {
		s := spec("x", 2, 3)
		change(s)
		return []*tensorpb.TensorSpec{s}
	}
	for name, specs := range map[string][]*tensorpb.TensorSpec{
		"no name":        one(func(s *tensorpb.TensorSpec) { s.Name = "" }),
		"long name":      one(func(s *tensorpb.TensorSpec) { s.Name = strings.Repeat("n", 129) }),
		"no type":        one(func(s *tensorpb.TensorSpec) { s.DataType = 0 }),
		"unknown type":   one(func(s *tensorpb.TensorSpec) { s.DataType = 77 }),
		"rank":           {spec("x", 1, 1, 1, 1, 1, 1, 1, 1, 1)},
		"zero":           {spec("x", 2, 0)},
		"negative":       one(func(s *tensorpb.TensorSpec) { s.Shape = []int64{-2, -3} }),
		"overflow":       one(func(s *tensorpb.TensorSpec) { s.Shape = []int64{1 << 31, 1 << 31, 1 << 31} }),
		"overflow to 24": one(func(s *tensorpb.TensorSpec) { s.Shape = []int64{1 << 62, 4, 6}; s.ByteSize = 24 }),
		"size too small": one(func(s *tensorpb.TensorSpec) { s.ByteSize-- }),
		"size too large": one(func(s *tensorpb.TensorSpec) { s.ByteSize++ }),
		"over the limit": {spec("x", 257)},
		"total":          {spec("x", 200), spec("y", 57)},
		"huge total":     {spec("x", 1), spec("y", 1<<60)},
		"many":           slices.Repeat([]*tensorpb.TensorSpec{spec("x", 1)}, 17),
		"nil":            {nil},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			_, err := stagerpc.NewReceiver(specs, 1024)
			wantBroken(t, err, stage.TensorInvalid)
		})
	}
	_, err := stagerpc.Announce([]stage.NamedTensor{{Name: "x", Tensor: tensor.Tensor{DType: tensor.F32, Shape: tensor.Shape{2}, Data: make([]byte, 4)}}})
	wantBroken(t, err, stage.TensorInvalid)
	_, err = stagerpc.Announce([]stage.NamedTensor{{Name: "x", Tensor: tensor.Tensor{DType: tensor.I64, Shape: tensor.Shape{1}, Data: make([]byte, 8)}}})
	wantBroken(t, err, stage.TensorInvalid)
}

func TestChunksRefused(t *testing.T) {
	eight, four := []byte("12345678"), []byte("1234")
	for name, chunks := range map[string][]*tensorpb.TensorChunk{
		"wrong index":        {chunk(1, 0, true, four)},
		"index back":         {chunk(0, 0, true, eight), chunk(0, 0, true, four)},
		"huge index":         {chunk(1<<32-1, 0, true, eight)},
		"gap":                {chunk(0, 4, true, four)},
		"overlap":            {chunk(0, 0, false, four), chunk(0, 2, false, four)},
		"again":              {chunk(0, 0, false, four), chunk(0, 0, false, four)},
		"negative offset":    {chunk(0, -4, false, four)},
		"empty":              {chunk(0, 0, false, nil)},
		"empty last":         {chunk(0, 0, false, four), chunk(0, 4, true, nil)},
		"too many bytes":     {chunk(0, 0, true, append(eight[:8:8], 9))},
		"last too soon":      {chunk(0, 0, true, four)},
		"last missing":       {chunk(0, 0, false, eight)},
		"more than expected": {chunk(0, 0, true, eight), chunk(1, 0, true, four), chunk(2, 0, true, four)},
		"nothing":            {nil},
		"cut off":            {chunk(0, 0, true, eight)},
		"cut off within":     {chunk(0, 0, false, four)},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r, err := stagerpc.NewReceiver([]*tensorpb.TensorSpec{spec("x", 2), spec("y", 1)}, 1024)
			if err != nil {
				t.Fatal(err)
			}
			for i, c := range chunks {
				if err = r.Add(c); err != nil && i < len(chunks)-1 {
					t.Fatalf("chunk %d: %v", i, err)
				}
			}
			if err == nil {
				_, err = r.Finish()
			}
			wantBroken(t, err, stage.TensorInvalid)
		})
	}
	large, err := stagerpc.NewReceiver([]*tensorpb.TensorSpec{spec("x", 1<<20)}, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	wantBroken(t, large.Add(chunk(0, 0, false, make([]byte, stagerpc.MaxChunkBytes+1))), stage.TensorInvalid)
	bad := chunk(0, 0, false, four)
	bad.Crc32C++
	wantBroken(t, large.Add(bad), stage.ChecksumMismatch)
}

// TestMemoryFollowsBytes announces 1 GiB and sends little.
func TestMemoryFollowsBytes(t *testing.T) {
	part := make([]byte, stagerpc.MaxChunkBytes)
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			r, err := stagerpc.NewReceiver([]*tensorpb.TensorSpec{spec("x", 1<<28)}, 1<<30)
			if err != nil {
				b.Fatal(err)
			}
			for i := range int64(5) {
				if err := r.Add(chunk(0, i<<20, false, part)); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	if n := result.AllocedBytesPerOp(); n > 13<<20 { // 4 MiB, then 8 MiB
		t.Errorf("5 MiB of an announced GiB take %d bytes", n)
	}
}

// FuzzTensorChunks plays chunks to a Receiver beside a dumb model of what it has to accept.
func FuzzTensorChunks(f *testing.F) {
	f.Add(uint8(1), uint8(2), []byte{0, 8, 0, 4, 0, 4})
	f.Add(uint8(3), uint8(1), []byte{0, 4, 0, 4, 0, 4})
	f.Add(uint8(1), uint8(4), []byte{1, 4, 2, 4, 3, 4, 4, 4, 5, 4, 6, 0})
	f.Fuzz(func(t *testing.T, tensors, elements uint8, script []byte) {
		var specs []*tensorpb.TensorSpec
		for range tensors {
			specs = append(specs, spec("x", int64(elements)))
		}
		r, err := stagerpc.NewReceiver(specs, stagerpc.MaxTensorBytes)
		if bad := tensors > stagerpc.MaxTensors || (tensors > 0 && elements == 0); bad || err != nil {
			if !bad || stage.ReasonOf(err) != stage.TensorInvalid {
				t.Fatalf("%d tensors of %d elements: %v", tensors, elements, err)
			}
			return
		}
		size := 4 * int(elements)
		var accepted []byte // the dumb model: every byte so far
		total := size * int(tensors)
		for len(script) >= 2 {
			how, n := script[0], int(script[1])
			script = script[2:]
			data := bytes.Repeat([]byte{how ^ byte(n)}, n)
			index, offset := 0, 0
			if size > 0 {
				index, offset = len(accepted)/size, len(accepted)%size
			}
			c := chunk(uint32(index), int64(offset), offset+n == size, data)
			honest := len(accepted) < total && n > 0 && offset+n <= size
			switch how % 8 {
			case 1:
				c.TensorIndex += uint32(how)
			case 2:
				c.Offset -= int64(how)
			case 3:
				c.Last = !c.Last
			case 4:
				c.Crc32C ^= uint32(how)
			}
			expected := stage.Reason("")
			switch {
			case how%8 == 4 && honest:
				expected = stage.ChecksumMismatch
			case !honest || (how%8 >= 1 && how%8 <= 3):
				expected = stage.TensorInvalid
			}
			if err := r.Add(c); stage.ReasonOf(err) != expected || (expected == "") != (err == nil) {
				t.Fatalf("%v gave %v, expected %q", c, err, expected)
			}
			if expected == "" {
				accepted = append(accepted, data...)
			}
		}
		got, err := r.Finish()
		if (err == nil) != (len(accepted) == total) {
			t.Fatalf("%d of %d bytes: %v", len(accepted), total, err)
		}
		var all []byte
		for _, x := range got {
			if err := x.Validate(); err != nil {
				t.Fatal(err)
			}
			all = append(all, x.Data...)
		}
		if err == nil && !bytes.Equal(all, accepted) {
			t.Fatal(cmp.Diff(accepted, all))
		}
	})
}
