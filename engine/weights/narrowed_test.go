package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// wide are float64 values and what torch 2's Tensor.float() makes of them.
var wide = []struct {
	f64 uint64
	f32 uint32
}{
	{0x0000000000000000, 0x00000000},
	{0x8000000000000000, 0x80000000},
	{0x3ff0000000000000, 0x3f800000},
	{0x3fd5555555555555, 0x3eaaaaab},
	{0xbfd5555555555555, 0xbeaaaaab},
	{0x3ff0000010000000, 0x3f800000},
	{0x3ff0000030000000, 0x3f800002},
	{0x3ff0000010000001, 0x3f800001}, // ties to even, and above one
	{0x4170000010000000, 0x4b800000},
	{0xc170000030000000, 0xcb800002},
	{0x47effffff0000000, 0x7f800000},
	{0x47efffffefffffff, 0x7f7fffff},
	{0x47f074f8c4d3cd7b, 0x7f800000},
	{0xfe37e43c8800759c, 0xff800000}, // near the largest
	{0x3696d601ad376ab9, 0x00000001},
	{0x3690000000000000, 0x00000000},
	{0xb66244ce242c5561, 0x80000000},
	{0x01a56e1fc2f8f359, 0x00000000}, // near the smallest
	{0x3810000000000000, 0x00800000},
	{0x0010000000000000, 0x00000000},
	{0x7ff0000000000000, 0x7f800000},
	{0xfff0000000000000, 0xff800000},
	{0x7ff8000000000000, 0x7fc00000},
}

// wideFile has wide n times over in two tensors of F64, a of one row less, behind as many bytes as skip tells.
func wideFile(t *testing.T, skip, n int) (path string, want []byte) {
	t.Helper()
	data := make([]byte, skip)
	for range n {
		for _, v := range wide {
			data = binary.LittleEndian.AppendUint64(data, v.f64)
			want = binary.LittleEndian.AppendUint32(want, v.f32)
		}
	}
	elems := n * len(wide)
	header := fmt.Sprintf(`{"skip":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]},"a":{"dtype":"F64","shape":[%d],"data_offsets":[%d,%d]},"b":{"dtype":"F64","shape":[1,1],"data_offsets":[%d,%d]}}`,
		skip, skip, elems-1, skip, skip+8*elems-8, skip+8*elems-8, skip+8*elems)
	return write(t, t.TempDir(), "m.safetensors", built(header, data)), want
}

// TestF64IsReadAsF32 reads float64 tensors wherever they begin, whole and in parts that cut values.
func TestF64IsReadAsF32(t *testing.T) {
	for skip := range 9 {
		path, want := wideFile(t, skip, 400) // more than a buffer
		s, err := OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if dtype, shape, ok := s.Info("b"); !ok || dtype != tensor.F32 || !shape.Equal(tensor.Shape{1, 1}) || s.TypeName("b") != "F64" {
			t.Errorf("b is %v %v %v, stored as %s", dtype, shape, ok, s.TypeName("b"))
		}
		a, errA := s.Data("a")
		b, errB := s.Data("b")
		if err := errors.Join(errA, errB); err != nil || string(a)+string(b) != string(want) {
			t.Fatalf("behind %d bytes: %v, or other values than torch's", skip, err)
		}
		section, err := s.Section("a")
		if err != nil {
			t.Fatal(err)
		}
		for from := range 8 {
			for n := range 70 {
				part := make([]byte, n)
				if _, err := section.ReadAt(part, int64(from)); err != nil || string(part) != string(a[from:from+n]) {
					t.Fatalf("behind %d bytes: bytes %d to %d: %v, or other values", skip, from, from+n, err)
				}
			}
		}
		if n, err := section.ReadAt(make([]byte, 9), int64(len(a)-4)); n != 4 || err != io.EOF {
			t.Errorf("%d bytes, %v at the end", n, err)
		}
	}
}

// Sections of one file have the same reader and are in its order, as loads want them.
func TestF64SectionsKeepTheOrderOfTheFile(t *testing.T) {
	path, _ := wideFile(t, 3, 1)
	s, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, errA := s.Section("a")
	b, errB := s.Section("b")
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	fileA, startA, sizeA := a.Outer()
	fileB, startB, sizeB := b.Outer()
	if fileA != fileB || startB != startA+sizeA || sizeB != 4 {
		t.Errorf("sections at %d with %d and at %d with %d bytes, want neighbours in one file", startA, sizeA, startB, sizeB)
	}
}

func TestF64FileCutWhileOpen(t *testing.T) {
	path, _ := wideFile(t, 0, 1)
	s, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-1); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := s.Data("b"); !errors.As(err, &e) || e.Tensor != "b" || e.File != path {
		t.Errorf("%v, want an Error of b", err)
	}
}
