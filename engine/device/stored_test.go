package device

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// memory is a Source.
type memory map[string][]byte

func (m memory) Section(name string) (*io.SectionReader, error) {
	data, ok := m[name]
	if !ok {
		return nil, fmt.Errorf("no tensor %s", name)
	}
	return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), nil
}

// counted is numbers from first on, as float32.
func counted(first, n int) (data []byte) {
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(first + i)
	}
	data = make([]byte, 4*n)
	if err := tensor.Narrow(data, tensor.F32, values); err != nil {
		panic(err)
	}
	return data
}

// TestSectionReads: an assembled parameter is read by any cuts of it, also of single values.
func TestSectionReads(t *testing.T) {
	src := memory{"a": counted(0, 12), "b": counted(100, 15)} // [4, 3] and [3, 5]
	p := &Param{Name: "p", Layout: Matrix, DType: tensor.F32, Shape: tensor.Shape{6, 3}, From: []Slice{
		{Name: "a", FirstRow: 2, Rows: 2}, {Name: "b", FirstRow: 1, Rows: 3, Transposed: true, Scale: 2}, {Name: "a", FirstRow: 1, Rows: 1, Scale: -1},
	}}
	want := []float32{6, 7, 8, 9, 10, 11, 202, 212, 222, 204, 214, 224, 206, 216, 226, -3, -4, -5}
	section, err := p.Section(src)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		got := make([]byte, 4*len(want))
		for at := 0; at < len(want); {
			n := 1 + r.IntN(len(want)-at)
			if k, err := section.ReadAt(got[4*at:][:4*n], int64(4*at)); err != nil || k != 4*n {
				t.Fatalf("%d values at %d: %d bytes, %v", n, at, k, err)
			}
			at += n
		}
		values := make([]float32, len(want))
		if err := tensor.Widen(values, tensor.F32, got); err != nil || !slices.Equal(values, want) {
			t.Fatalf("%v, %v; want %v", values, err, want)
		}
	}
	whole, err := io.ReadAll(io.NewSectionReader(section, 0, section.Size()))
	if err != nil || len(whole) != 4*len(want) || binary.LittleEndian.Uint32(whole) == 0 {
		t.Errorf("%d bytes to the end, %v", len(whole), err)
	}
	if _, err := section.ReadAt(make([]byte, 4), 26); err == nil {
		t.Error("half values of what is scaled were read")
	}
	if n, err := section.ReadAt(make([]byte, 12), 4*16); n != 8 || err != io.EOF {
		t.Errorf("behind the end: %d bytes, %v", n, err)
	}
	src["b"] = nil
	if _, err := p.Section(src); err == nil {
		t.Error("an empty tensor has rows")
	}
}

// TestTensors: what is stored is listed once, with all the rows that are asked for.
func TestTensors(t *testing.T) {
	m := &Manifest{}
	m.Add(Param{Name: "plain", Layout: Filter, DType: tensor.F16, Shape: tensor.Shape{8, 4, 3, 3}})
	for i, name := range []string{"q", "k", "v"} {
		m.Add(Param{Name: name, Layout: Matrix, DType: tensor.BF16, Shape: tensor.Shape{6, 5}, From: []Slice{{Name: "fused", FirstRow: 6 * (2 - i), Rows: 6}}})
	}
	m.Add(Param{Name: "mixed", Layout: Matrix, DType: tensor.F32, Shape: tensor.Shape{7, 5}, From: []Slice{{Name: "turned", FirstRow: 1, Rows: 4, Transposed: true}, {Name: "rest", Rows: 2}, {Name: "turned", Rows: 1, Transposed: true}}})
	m.Add(Param{Name: "bias", Layout: Vector, DType: tensor.F32, Shape: tensor.Shape{4}, From: []Slice{{Name: "half", FirstRow: 2, Rows: 2}, {Name: "half", Rows: 2}}})
	m.Add(Param{Name: "plain", Layout: Filter, DType: tensor.F16, Shape: tensor.Shape{8, 4, 3, 3}})
	want := []Tensor{
		{"plain", tensor.F16, tensor.Shape{8, 4, 3, 3}},
		{"fused", tensor.BF16, tensor.Shape{18, 5}},
		{"turned", tensor.F32, tensor.Shape{5, 5}},
		{"rest", tensor.F32, tensor.Shape{2, 5}},
		{"half", tensor.F32, tensor.Shape{4}},
	}
	if diff := cmp.Diff(want, m.Tensors()); diff != "" {
		t.Error(diff)
	}
	if got := m.Params[1].Shape; !got.Equal(tensor.Shape{6, 5}) {
		t.Errorf("the parameter's shape became %v", got)
	}
}
