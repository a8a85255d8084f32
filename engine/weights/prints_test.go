package weights

import (
	"bytes"
	"errors"
	"hash/crc32"
	"math/rand"
	"os"
	"slices"
	"testing"
)

// However tensors are cut when they are read, their sums are those of their bytes, and known once all have been read.
func TestSums(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	data := map[string][]byte{"a": make([]byte, 70_000), "b": make([]byte, 1), "c": make([]byte, 12_345)}
	names := []string{"c", "a", "b"}
	for _, v := range data {
		r.Read(v)
	}
	path := write(t, t.TempDir(), "m.safetensors", bytesFile(data))
	for range 20 {
		s, err := OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p := &Prints{}
		s.Watch(p)
		type cut struct {
			name     string
			from, to int
		}
		var cuts []cut
		for _, name := range names {
			for from := 0; from < len(data[name]); {
				to := min(len(data[name]), from+1+r.Intn(40_000))
				cuts = append(cuts, cut{name, from, to})
				from = to
			}
		}
		r.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
		for i, c := range cuts {
			if _, known := s.Sums(p, names); known {
				t.Fatalf("known with %d of %d pieces read", i, len(cuts))
			}
			section, err := s.Section(c.name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := section.ReadAt(make([]byte, c.to-c.from), int64(c.from)); err != nil {
				t.Fatal(err)
			}
		}
		sums, known := s.Sums(p, names)
		var want []uint32
		for _, name := range names {
			want = append(want, crc32.ChecksumIEEE(data[name]))
		}
		if !known || !slices.Equal(sums, want) {
			t.Fatalf("%x, %v; want %x", sums, known, want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What is read again and has changed is an error that names the tensor, also through files that were opened anew.
func TestReadAgain(t *testing.T) {
	path := write(t, t.TempDir(), "m.safetensors", bytesFile(map[string][]byte{"a": {1, 2, 3}, "b": {4, 5, 6}}))
	p := &Prints{}
	read := func() error {
		s, err := OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.Watch(p)
		_, errA := s.Data("a")
		_, errB := s.Data("b")
		return errors.Join(errA, errB)
	}
	if err := errors.Join(read(), read()); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file = bytes.Clone(file)
	file[len(file)-1]++
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if err := read(); !errors.As(err, &e) || !errors.Is(err, ErrChanged) || e.Tensor != "b" {
		t.Errorf("%v, want ErrChanged of b", err)
	}
}
