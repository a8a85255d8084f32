package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// wide are float64 values and what torch 2's Tensor.float() makes of them. What is no finite number as a float32 is refused.
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
	{0x47efffffefffffff, 0x7f7fffff},
	{0x3696d601ad376ab9, 0x00000001},
	{0x3690000000000000, 0x00000000},
	{0xb66244ce242c5561, 0x80000000},
	{0x01a56e1fc2f8f359, 0x00000000}, // near the smallest
	{0x3810000000000000, 0x00800000},
	{0x0010000000000000, 0x00000000},
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

// Whatever the type, a value that is not finite is an Error that names file and tensor, wherever reads begin and end around it.
func TestNotFinite(t *testing.T) {
	for _, c := range []struct {
		dtype, value, got string
	}{
		{"F32", "\x00\x00\xc0\x7f", "NaN"},
		{"F32", "\x00\x00\x80\xff", "-Inf"},
		{"F16", "\x00\x7c", "+Inf"},
		{"F16", "\x01\xfc", "NaN"},
		{"BF16", "\x80\x7f", "+Inf"},
		{"BF16", "\xc0\xff", "NaN"},
		{"F64", "\x00\x00\x00\x00\x00\x00\xf8\x7f", "NaN"},
		{"F64", "\x00\x00\x00\x00\x00\x00\xf0\xff", "-Inf"},
		{"F64", "\x00\x00\x00\xf0\xff\xff\xef\x47", "+Inf"},
		{"F64", "\x9c\x75\x00\x88\x3c\xe4\x37\xfe", "-Inf"}, // too large for a float32
		{"F8_E4M3", "\x7f", "NaN"},
		{"F8_E4M3", "\xff", "NaN"},
		{"F8_E5M2", "\x7c", "+Inf"},
		{"F8_E5M2", "\xfd", "NaN"},
	} {
		for skip := range len(c.value) + 1 { // unaligned too
			const before, behind = 37, 5
			n := len(c.value)
			data := make([]byte, skip+(before+1+behind)*n)
			copy(data[skip+before*n:], c.value)
			header := fmt.Sprintf(`{"skip":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]},"a":{"dtype":%q,"shape":[%d],"data_offsets":[%d,%d]},"b":{"dtype":%q,"shape":[%d],"data_offsets":[%d,%d]}}`,
				skip, skip, c.dtype, before, skip, skip+before*n, c.dtype, 1+behind, skip+before*n, len(data))
			path := write(t, t.TempDir(), "m.safetensors", built(header, data))
			s, err := OpenFile(path)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := s.Data("a"); err != nil {
				t.Errorf("%s, the tensor before: %v", c.dtype, err)
			}
			var e *Error
			if _, err := s.Data("b"); !errors.As(err, &e) || e.File != path || e.Tensor != "b" || e.Expected != "finite numbers" || e.Got != c.got {
				t.Errorf("%s %x: %v, want an Error with %s in b", c.dtype, c.value, err, c.got)
			}
			section, err := s.Section("b")
			if err != nil {
				t.Fatal(err)
			}
			size := section.Size() / (1 + behind)
			if _, err := section.ReadAt(make([]byte, behind*size), size); err != nil {
				t.Errorf("%s, the values behind it: %v", c.dtype, err)
			}
		}
	}
}

// Values of eight bits are the numbers that their definition gives, and read alike whole and in parts.
func TestFloat8(t *testing.T) {
	var e4m3Values, e5m2Values []byte
	var want [2][]float32
	for i := range 256 {
		sign, e4, m3, e5, m2 := 1-2*float64(i>>7), i>>3&15, i&7, i>>2&31, i&3
		if i&0x7f != 0x7f {
			value := math.Ldexp(1+float64(m3)/8, e4-7)
			if e4 == 0 {
				value = math.Ldexp(float64(m3)/8, -6)
			}
			e4m3Values, want[0] = append(e4m3Values, byte(i)), append(want[0], float32(sign*value))
		}
		if e5 != 31 {
			value := math.Ldexp(1+float64(m2)/4, e5-15)
			if e5 == 0 {
				value = math.Ldexp(float64(m2)/4, -14)
			}
			e5m2Values, want[1] = append(e5m2Values, byte(i)), append(want[1], float32(sign*value))
		}
	}
	n, both := len(e4m3Values), len(e4m3Values)+len(e5m2Values)
	header := fmt.Sprintf(`{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"e4m3":{"dtype":"F8_E4M3","shape":[%d,1],"data_offsets":[1,%d]},"e5m2":{"dtype":"F8_E5M2","shape":[%d],"data_offsets":[%d,%d]}}`,
		n, 1+n, len(e5m2Values), 1+n, 1+both)
	s, err := OpenFile(write(t, t.TempDir(), "m.safetensors", built(header, append(append([]byte{0}, e4m3Values...), e5m2Values...))))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, name := range []string{"e4m3", "e5m2"} {
		dtype, _, _ := s.Info(name)
		data, err := s.Data(name)
		got := make([]float32, len(data)/2)
		if widened := tensor.Widen(got, dtype, data); err != nil || widened != nil || !slices.Equal(got, want[i]) {
			t.Errorf("%s: %v %v, %v, want %v", name, err, widened, got, want[i])
		}
		section, err := s.Section(name)
		if err != nil {
			t.Fatal(err)
		}
		for from := range 5 {
			for n := range 9 {
				part := make([]byte, n)
				if _, err := section.ReadAt(part, int64(from)); err != nil || string(part) != string(data[from:from+n]) {
					t.Fatalf("%s: bytes %d to %d: %x, %v", name, from, from+n, part, err)
				}
			}
		}
	}
}
