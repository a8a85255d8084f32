package stagerpc_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/triptych-serving/triptych/engine/tensor"
	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"google.golang.org/protobuf/proto"
)

const fp32 = tensorpb.DataType_DATA_TYPE_FP32

func sum(data []byte) []byte {
	s := sha256.Sum256(data)
	return s[:]
}

func crc(data []byte) uint32 { return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) }

type spec = stagepb.ValueSpec

// tensorSpec announces a tensor, without a hash.
func tensorSpec(name string, shape ...int64) *spec {
	size := int64(4)
	for _, d := range shape {
		size *= d
	}
	return &spec{Name: name, Form: &stagepb.ValueSpec_Tensor{Tensor: &tensorpb.TensorSpec{DataType: fp32, Shape: shape, ByteSize: size}}}
}

// fileSpec announces a file, without a hash.
func fileSpec(name string, size int64) *spec {
	return &spec{Name: name, Form: &stagepb.ValueSpec_File{File: &stagepb.FileSpec{Media: "image/png", ByteSize: size}}}
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

func TestValuesSurvive(t *testing.T) {
	big := make([]float32, 700_000) // more than five chunks
	for i := range big {
		big[i] = float32(i)
	}
	values := stage.Values{
		{Name: "big", Tensor: tensor.FromF32(big, 7, 100, 1000)},
		{Name: "scalar", Tensor: tensor.FromF32([]float32{3})},
		{Name: "half", Tensor: tensor.Tensor{DType: tensor.F16, Shape: tensor.Shape{3}, Data: []byte("abcdef")}},
		{Name: "brain", Tensor: tensor.Tensor{DType: tensor.BF16, Shape: tensor.Shape{1, 1}, Data: []byte("xy")}, Unit: 1, Units: 3},
		{Name: "exact", Tensor: tensor.FromF32(make([]float32, stagerpc.ChunkBytes/4), stagerpc.ChunkBytes/4)},
		{Name: "photo", File: &stage.File{Media: "image/jpeg", WidthPx: 3, HeightPx: 4, Data: make([]byte, stagerpc.ChunkBytes+1)}},
	}
	specs, err := stagerpc.Announce(values)
	if err != nil {
		t.Fatal(err)
	}
	r, err := stagerpc.NewReceiver(specs)
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	err = stagerpc.Send(values, r.Wanted(), func(c *tensorpb.TensorChunk) error {
		sent++
		if n := proto.Size(c); n > stagerpc.MaxChunkBytes {
			t.Errorf("a chunk of %d bytes", n)
		}
		return r.Add(c)
	})
	if err != nil || sent != 6+4+2 {
		t.Fatalf("%d chunks, %v", sent, err)
	}
	got, err := r.Finish()
	if diff := cmp.Diff(values, got, cmp.Comparer(bytes.Equal)); err != nil || diff != "" {
		t.Errorf("%v, values do not survive", err)
	}
	stop := errors.New("stop")
	if err := stagerpc.Send(values, []uint32{2}, func(*tensorpb.TensorChunk) error { return stop }); err != stop {
		t.Errorf("Send gives %v for %v", err, stop)
	}
}

// TestHave: what is there need not come, and is left out.
func TestHave(t *testing.T) {
	values := stage.Values{{Name: "a", Tensor: ramp(2)}, {Name: "b", Tensor: ramp(3)}, {Name: "c", Tensor: ramp(1)}}
	specs, err := stagerpc.Announce(values)
	if err != nil {
		t.Fatal(err)
	}
	for _, have := range [][]int{nil, {0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}} {
		r, err := stagerpc.NewReceiver(specs)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range have {
			r.Have(i, values[i].Tensor.Data)
		}
		r.Have(0, values[1].Tensor.Data) // of another length
		if n := len(r.Wanted()); n != len(values)-len(have) {
			t.Errorf("with %v: wanted are %d", have, n)
		}
		if err := stagerpc.Send(values, r.Wanted(), r.Add); err != nil {
			t.Errorf("with %v: %v", have, err)
		}
		got, err := r.Finish()
		if diff := cmp.Diff(values, got); err != nil || diff != "" {
			t.Errorf("with %v: %v\n%s", have, err, diff)
		}
	}
}

// TestChunkGolden pins the bytes of chunks on the wire; the checksums were computed apart, bit by bit.
func TestChunkGolden(t *testing.T) {
	var wire []byte
	values := stage.Values{
		{Name: "a", Tensor: tensor.FromF32([]float32{1}, 1)},
		{Name: "b", Tensor: tensor.FromF32([]float32{2, 3}, 2)},
	}
	err := stagerpc.Send(values, []uint32{0, 1}, func(c *tensorpb.TensorChunk) (err error) {
		wire, err = proto.MarshalOptions{Deterministic: true}.MarshalAppend(wire, c)
		return err
	})
	const golden = "1dabc454dd2001" + "7a040000803f" + "0801" + "1d9c0315052001" + "7a080000004000004040"
	if got := hex.EncodeToString(wire); err != nil || got != golden {
		t.Errorf("chunks are %s, expected %s (%v)", got, golden, err)
	}
}

func TestAnnouncementsRefused(t *testing.T) {
	one := func(change func(*spec, *tensorpb.TensorSpec)) []*spec {
		s := tensorSpec("x", 2, 3)
		change(s, s.GetTensor())
		return []*spec{s}
	}
	of := func(change func(*tensorpb.TensorSpec)) []*spec {
		return one(func(_ *spec, s *tensorpb.TensorSpec) { change(s) })
	}
	for name, specs := range map[string][]*spec{
		"no name":        one(func(s *spec, _ *tensorpb.TensorSpec) { s.Name = "" }),
		"long name":      one(func(s *spec, _ *tensorpb.TensorSpec) { s.Name = strings.Repeat("n", 129) }),
		"odd hash":       one(func(s *spec, _ *tensorpb.TensorSpec) { s.Sha256 = make([]byte, 31) }),
		"unit of none":   one(func(s *spec, _ *tensorpb.TensorSpec) { s.Unit = 1 }),
		"unit beyond":    one(func(s *spec, _ *tensorpb.TensorSpec) { s.Unit, s.Units = 2, 2 }),
		"negative unit":  one(func(s *spec, _ *tensorpb.TensorSpec) { s.Unit, s.Units = -1, 2 }),
		"negative units": one(func(s *spec, _ *tensorpb.TensorSpec) { s.Units = -2 }),
		"no form":        one(func(s *spec, _ *tensorpb.TensorSpec) { s.Form = nil }),
		"no type":        of(func(s *tensorpb.TensorSpec) { s.DataType = 0 }),
		"unknown type":   of(func(s *tensorpb.TensorSpec) { s.DataType = 77 }),
		"rank":           {tensorSpec("x", 1, 1, 1, 1, 1, 1, 1, 1, 1)},
		"zero":           {tensorSpec("x", 2, 0)},
		"negative":       of(func(s *tensorpb.TensorSpec) { s.Shape = []int64{-2, -3} }),
		"overflow":       of(func(s *tensorpb.TensorSpec) { s.Shape = []int64{1 << 31, 1 << 31, 1 << 31} }),
		"overflow to 24": of(func(s *tensorpb.TensorSpec) { s.Shape = []int64{1 << 62, 4, 6}; s.ByteSize = 24 }),
		"size too small": of(func(s *tensorpb.TensorSpec) { s.ByteSize-- }),
		"size too large": of(func(s *tensorpb.TensorSpec) { s.ByteSize++ }),
		"over the limit": {tensorSpec("x", 1<<26+1)},
		"total":          append(slices.Repeat([]*spec{tensorSpec("x", 1<<26)}, 4), tensorSpec("y", 1)),
		"huge":           {tensorSpec("x", 1), tensorSpec("y", 1<<60)},
		"many":           slices.Repeat([]*spec{tensorSpec("x", 1)}, 33),
		"nil":            {nil},
		"no media":       {{Name: "x", Form: &stagepb.ValueSpec_File{File: &stagepb.FileSpec{Media: strings.Repeat("m", 129), ByteSize: 1}}}},
		"negative width": {{Name: "x", Form: &stagepb.ValueSpec_File{File: &stagepb.FileSpec{WidthPx: -1, ByteSize: 1}}}},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			_, err := stagerpc.NewReceiver(specs)
			wantBroken(t, err, stage.TensorInvalid)
		})
	}
	for _, size := range []int64{-1, 0, 64<<20 + 1} {
		if _, err := stagerpc.NewReceiver([]*spec{fileSpec("photo", size)}); stage.ReasonOf(err) != stage.InvalidField {
			t.Errorf("a file of %d bytes: %v", size, err)
		}
	}
	_, err := stagerpc.Announce(stage.Values{{Name: "x", Tensor: tensor.Tensor{DType: tensor.F32, Shape: tensor.Shape{2}, Data: make([]byte, 4)}}})
	wantBroken(t, err, stage.TensorInvalid)
	_, err = stagerpc.Announce(stage.Values{{Name: "x", Tensor: tensor.Tensor{DType: tensor.I64, Shape: tensor.Shape{1}, Data: make([]byte, 8)}}})
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
			r, err := stagerpc.NewReceiver([]*spec{tensorSpec("x", 2), fileSpec("y", 4)})
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
	large, err := stagerpc.NewReceiver([]*spec{tensorSpec("x", 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	wantBroken(t, large.Add(chunk(0, 0, false, make([]byte, stagerpc.MaxChunkBytes+1))), stage.TensorInvalid)
	bad := chunk(0, 0, false, four)
	bad.Crc32C++
	wantBroken(t, large.Add(bad), stage.ChecksumMismatch)
	hashed := fileSpec("x", 4)
	hashed.Sha256 = make([]byte, 32)
	r, err := stagerpc.NewReceiver([]*spec{hashed})
	if err != nil {
		t.Fatal(err)
	}
	wantBroken(t, r.Add(chunk(0, 0, true, four)), stage.ChecksumMismatch)
}

// TestMemoryFollowsBytes announces 256 MiB and sends little.
func TestMemoryFollowsBytes(t *testing.T) {
	part := make([]byte, stagerpc.MaxChunkBytes)
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			r, err := stagerpc.NewReceiver([]*spec{tensorSpec("x", 1<<26)})
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
		t.Errorf("5 MiB of announced 256 MiB take %d bytes", n)
	}
}

// FuzzReceiver plays chunks to a Receiver, of whose values some are there already, beside a dumb model of what it has to accept.
func FuzzReceiver(f *testing.F) {
	f.Add(uint8(1), uint8(2), uint8(0), []byte{0, 8, 0, 4, 0, 4})
	f.Add(uint8(3), uint8(1), uint8(2), []byte{0, 4, 0, 4, 0, 4})
	f.Add(uint8(1), uint8(4), uint8(0), []byte{1, 4, 2, 4, 3, 4, 4, 4, 5, 4, 6, 0})
	f.Fuzz(func(t *testing.T, values, elements, have uint8, script []byte) {
		var specs []*spec
		for i := range values {
			if i%2 == 0 {
				specs = append(specs, tensorSpec("x", int64(elements)))
			} else {
				specs = append(specs, fileSpec("x", 4*int64(elements)))
			}
		}
		r, err := stagerpc.NewReceiver(specs)
		if bad := values > stagerpc.MaxValues || (values > 0 && elements == 0); bad || err != nil {
			if !bad || stage.ReasonOf(err) != stage.TensorInvalid {
				t.Fatalf("%d values of %d elements: %v", values, elements, err)
			}
			return
		}
		size := 4 * int(elements)
		var wanted []int // the dumb model: what comes, and every byte so far
		var accepted []byte
		for i := range int(values) {
			if have>>(i%8)&1 == 1 {
				r.Have(i, make([]byte, size))
			} else {
				wanted = append(wanted, i)
			}
		}
		total := size * len(wanted)
		for len(script) >= 2 {
			how, n := script[0], int(script[1])
			script = script[2:]
			data := bytes.Repeat([]byte{how ^ byte(n)}, n)
			index, offset := 0, 0
			if len(accepted) < total {
				index, offset = wanted[len(accepted)/size], len(accepted)%size
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
		if err != nil {
			return
		}
		var all []byte
		for _, i := range wanted {
			if v := got[i]; v.File != nil {
				all = append(all, v.File.Data...)
			} else if err := v.Tensor.Validate(); err != nil {
				t.Fatal(err)
			} else {
				all = append(all, v.Tensor.Data...)
			}
		}
		if !bytes.Equal(all, accepted) {
			t.Fatal(cmp.Diff(accepted, all))
		}
	})
}
