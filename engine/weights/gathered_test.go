package weights

import (
	"bytes"
	"errors"
	"hash/crc32"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights/torchfile"
)

// TestGather compares views of a storage with the values picked one by one, whole and in parts.
func TestGather(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	storage := make([]byte, 6<<20)
	r.Read(storage)
	for _, c := range []struct {
		shape   tensor.Shape
		strides []int64
		dtype   string
		swapped bool
	}{
		{tensor.Shape{3, 5}, []int64{1, 3}, "F32", false},
		{tensor.Shape{700, 900}, []int64{1, 700}, "F16", false},   // transposed, its windows far apart
		{tensor.Shape{900, 1100}, []int64{1, 1000}, "F32", false}, // so much that no window holds a row
		{tensor.Shape{40, 30, 3, 3}, []int64{270, 1, 90, 30}, "F32", false},
		{tensor.Shape{200, 300}, []int64{0, 1}, "U8", false},
		{tensor.Shape{200, 300}, []int64{7, 0}, "F16", true},
		{tensor.Shape{1000, 3}, []int64{3, 1}, "F64", true},
		{tensor.Shape{}, []int64{}, "I64", true},
		{tensor.Shape{1 << 20}, []int64{2}, "U8", false},
		{tensor.Shape{0, 4}, []int64{1, 9}, "F32", false},
	} {
		const first = 13
		f := &file{path: "f", data: bytes.NewReader(storage)}
		g := newGathered(f, &torchfile.Tensor{Name: "v", DType: c.dtype, Shape: c.shape, Strides: c.strides, Data: torchfile.Bytes{Offset: first}}, c.swapped)
		elems, _ := c.shape.Elems()
		var want []byte
		for i := range elems {
			at, rest := int64(0), i
			for d := len(c.shape) - 1; d >= 0; d-- {
				at += int64(rest%c.shape[d]) * c.strides[d]
				rest /= c.shape[d]
			}
			value := slices.Clone(storage[first+at*g.item:][:g.item])
			if c.swapped {
				slices.Reverse(value)
			}
			want = append(want, value...)
		}
		got := make([]byte, len(want))
		if n, err := g.ReadAt(got, 0); err != nil || n != len(got) || !bytes.Equal(got, want) {
			t.Fatalf("%v %v: %d bytes, %v, or other values", c.shape, c.strides, n, err)
		}
		for range 20 {
			from := r.Intn(len(want) + 1)
			part := make([]byte, min(r.Intn(3000), len(want)-from))
			if _, err := g.ReadAt(part, int64(from)); err != nil || !bytes.Equal(part, want[from:from+len(part)]) {
				t.Fatalf("%v %v: bytes %d to %d: %v, or other values", c.shape, c.strides, from, from+len(part), err)
			}
		}
	}
}

// Tensors of torch that overlap or are gathered have sums like others, and a read that finds other bytes names the tensor.
func TestTorchPrints(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(formats, "torch", "legacy.pt")) // no checksums of its own
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, t.TempDir(), "m.pt", data)
	p := &Prints{}
	read := func() error {
		s, err := OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.Watch(p)
		for _, name := range s.Names() {
			section, err := s.Section(name)
			if err != nil {
				return err
			}
			if _, err := section.ReadAt(make([]byte, section.Size()), 0); err != nil && section.Size() > 0 {
				return err
			}
		}
		names := []string{"transposed", "whole", "f16"}
		sums, known := s.Sums(p, names)
		if !known {
			t.Fatal("sums are not known, and all has been read")
		}
		for i, name := range names {
			if data, err := s.Data(name); err != nil || sums[i] != crc32.ChecksumIEEE(data) {
				t.Errorf("%s: sum %08x of %x, %v", name, sums[i], data, err)
			}
		}
		return nil
	}
	if err := errors.Join(read(), read()); err != nil {
		t.Fatal(err)
	}
	s, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	section, err := s.Section("transposed")
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 4)
	if _, err := section.ReadAt(first, 4); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data[bytes.LastIndex(data, first)]++
	write(t, filepath.Dir(path), "m.pt", data)
	var e *Error
	if err := read(); !errors.As(err, &e) || !errors.Is(err, ErrChanged) || e.File != path || e.Tensor == "" {
		t.Errorf("%v, want ErrChanged of a tensor", err)
	}
}

// A record of a zip is checked before anything of it is given out, whichever of its tensors is read, and by all who read at once.
func TestCRC(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(formats, "torch", "zip.pt"))
	if err != nil {
		t.Fatal(err)
	}
	good := write(t, t.TempDir(), "good.pt", data)
	s, err := OpenFile(good)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	e := s.owners["whole"].tensors["whole"]
	data[e.end-1] ^= 1 // its last value
	bad := write(t, t.TempDir(), "bad.pt", data)
	b, err := OpenFile(bad)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	errs := make(chan error, 8)
	for i := range cap(errs) {
		name := []string{"whole", "transposed"}[i%2] // both are views of one storage
		section, err := b.Section(name)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := section.ReadAt(make([]byte, 4), 0) // not the damaged one
			var e *Error
			if !errors.As(err, &e) || e.File != bad || e.Tensor == "" {
				errs <- errors.Join(errors.New("want an Error of a tensor"), err)
				return
			}
			errs <- nil
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if _, err := b.Data("f16"); err != nil {
		t.Errorf("a tensor of another record: %v", err)
	}
	one, errOne := s.Section("a")
	two, errTwo := s.Section("whole")
	if err := errors.Join(errOne, errTwo); err != nil {
		t.Fatal(err)
	}
	fileOne, _, _ := one.Outer()
	fileTwo, _, _ := two.Outer()
	if fileOne != fileTwo { // as loads tell what lies in one file
		t.Error("sections of one file and type have two readers")
	}
}
