package nn

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// file is a Source made of a map.
type file map[string]stored

type stored struct {
	dtype tensor.DType
	shape tensor.Shape
}

func (f file) Info(name string) (tensor.DType, tensor.Shape, bool) {
	s, ok := f[name]
	return s.dtype, s.shape, ok
}

func (f file) TypeName(name string) string {
	if t := f[name].dtype; t != tensor.Invalid {
		return t.String()
	}
	return "F8_E8M0"
}
func (f file) Where(string) string { return "model.safetensors" }
func (f file) Names() []string {
	var out []string
	for name := range f {
		out = append(out, name)
	}
	return out
}

func TestScopeDeclares(t *testing.T) {
	s := NewScope(file{
		"a.b.weight":   {tensor.F16, tensor.Shape{4, 3}},
		"a.b.bias":     {tensor.F32, tensor.Shape{4}},
		"a.0.weight":   {tensor.BF16, tensor.Shape{4, 3, 1, 1}}, // a 1x1 convolution read as a matrix
		"conv.weight":  {tensor.F32, tensor.Shape{4, 3, 1, 1}},
		"table.weight": {tensor.F32, tensor.Shape{9, 3}},
		"position_ids": {tensor.I64, tensor.Shape{1, 9}},
	})
	a := s.Sub("a")
	weights := []device.Weight{
		a.Sub("b").Matrix("weight", 4, 3), a.Sub("b").Vector("bias", 4), s.Index("a", 0).Matrix("weight", 4, 3),
		s.Filter("conv.weight", 4, 3, 1, 1), s.Table("table.weight", 9, 3),
	}
	if surplus, err := a.Finish(func(name string) bool { return name == "position_ids" }); err != nil || len(surplus) > 0 {
		t.Fatal(surplus, err)
	}
	if surplus, err := a.Finish(nil); err != nil || !slices.Equal(surplus, []string{"position_ids"}) {
		t.Errorf("surplus %v, %v, want position_ids and no error", surplus, err)
	}
	want := []device.Param{
		{Name: "a.b.weight", Layout: device.Matrix, DType: tensor.F16, Shape: tensor.Shape{4, 3}},
		{Name: "a.b.bias", Layout: device.Vector, DType: tensor.F32, Shape: tensor.Shape{4}},
		{Name: "a.0.weight", Layout: device.Matrix, DType: tensor.BF16, Shape: tensor.Shape{4, 3}},
		{Name: "conv.weight", Layout: device.Filter, DType: tensor.F32, Shape: tensor.Shape{4, 3, 1, 1}},
		{Name: "table.weight", Layout: device.Table, DType: tensor.F32, Shape: tensor.Shape{9, 3}},
	}
	for i, w := range weights {
		if got := *s.Manifest().At(w); fmt.Sprint(got) != fmt.Sprint(want[i]) {
			t.Errorf("parameter %d is %v, want %v", i, got, want[i])
		}
	}
	if !a.Has("b.bias") || a.Has("b.gamma") {
		t.Error("Has is wrong about a.b.bias or a.b.gamma")
	}
}

// Keep is for matrices and filters, those declared behind it.
func TestScopeKeeps(t *testing.T) {
	s := NewScope(file{
		"before": {tensor.F16, tensor.Shape{4, 3}},
		"matrix": {tensor.F16, tensor.Shape{4, 3}},
		"filter": {tensor.F32, tensor.Shape{4, 3, 3, 3}},
		"vector": {tensor.F16, tensor.Shape{4}},
		"table":  {tensor.F16, tensor.Shape{9, 3}},
	})
	before := s.Matrix("before", 4, 3)
	s.Sub("path").Keep(tensor.I8)
	for w, want := range map[device.Weight]tensor.DType{
		before: tensor.Invalid, s.Matrix("matrix", 4, 3): tensor.I8, s.Filter("filter", 4, 3, 3, 3): tensor.I8,
		s.Vector("vector", 4): tensor.Invalid, s.Table("table", 9, 3): tensor.Invalid,
	} {
		if p := s.Manifest().At(w); p.Resident != want {
			t.Errorf("%s is kept as %v, want %v", p.Name, p.Resident, want)
		}
	}
	if _, err := s.Finish(nil); err != nil {
		t.Error(err)
	}
}

func TestScopeReportsEverything(t *testing.T) {
	s := NewScope(file{
		"w":        {tensor.F32, tensor.Shape{3, 4}},
		"fp8scale": {tensor.Invalid, tensor.Shape{4}},
		"int":      {tensor.I32, tensor.Shape{4}},
		"f":        {tensor.F32, tensor.Shape{4, 3}},
		"v":        {tensor.F32, tensor.Shape{4, 1, 1, 1}},
		"extra":    {tensor.F32, tensor.Shape{2, 2}},
	})
	s.Matrix("w", 4, 3)
	s.Vector("fp8scale", 4)
	s.Vector("int", 4)
	s.Filter("f", 4, 3, 1, 1)
	s.Vector("v", 4)
	s.Vector("gone", 4)
	_, err := s.Finish(nil)
	var all TensorErrors
	if !errors.As(err, &all) {
		t.Fatalf("%v, want TensorErrors", err)
	}
	want := TensorErrors{
		{"model.safetensors", "w", Misshapen, "[4, 3]", "[3, 4]"},
		{"model.safetensors", "fp8scale", Unsupported, "F64, F32, F16, BF16, F8_E4M3 or F8_E5M2", "F8_E8M0"},
		{"model.safetensors", "int", Unsupported, "F64, F32, F16, BF16, F8_E4M3 or F8_E5M2", "I32"},
		{"model.safetensors", "f", Misshapen, "[4, 3, 1, 1]", "[4, 3]"},
		{"model.safetensors", "v", Misshapen, "[4]", "[4, 1, 1, 1]"},
		{"model.safetensors", "gone", Missing, "[4]", "no such tensor"},
		{"model.safetensors", "extra", Surplus, "no tensor of that name", "F32 [2, 2]"},
	}
	if len(all) != len(want) {
		t.Fatalf("%d problems, want %d: %v", len(all), len(want), err)
	}
	for i, e := range all {
		if *e != *want[i] {
			t.Errorf("problem %d is %v, want %v", i, *e, *want[i])
		}
	}
	var one *TensorError
	if !errors.As(err, &one) || one.Tensor != "w" {
		t.Errorf("errors.As finds %v, want the problem of w", one)
	}
	if text := err.Error(); !strings.Contains(text, `"w" is misshapen: expected [4, 3], got [3, 4]`) || !strings.HasSuffix(text, "and 2 more") {
		t.Errorf("text %q", text)
	}
}

func TestLayoutConversion(t *testing.T) {
	src := []float32{0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15} // 2 images, 2 channels, 3 pixels
	want := []float32{0, 3, 1, 4, 2, 5, 10, 13, 11, 14, 12, 15}
	last, first := make([]float32, len(src)), make([]float32, len(src))
	ToChannelsLast(last, src, 2, 2, 3)
	ToChannelsFirst(first, last, 2, 2, 3)
	for i := range src {
		if last[i] != want[i] || first[i] != src[i] {
			t.Fatalf("last %v, want %v; back %v, want %v", last, want, first, src)
		}
	}
}

// An assembled parameter uses the tensors of its slices, whose names are below the scope's path, and none of its own name.
func TestScopeAssembles(t *testing.T) {
	s := NewScope(file{
		"a.in_proj":  {tensor.F16, tensor.Shape{12, 4}},
		"a.q":        {tensor.F16, tensor.Shape{4, 4, 1, 1}},
		"projection": {tensor.BF16, tensor.Shape{4, 6}},
		"shift":      {tensor.F32, tensor.Shape{8}},
	})
	s.Keep(tensor.I8)
	half := func(name string, first int) device.Slice { return device.Slice{Name: name, FirstRow: first, Rows: 4} }
	a := s.Sub("a")
	a.Assemble("q and v", device.Matrix, tensor.Shape{8, 4}, half("q", 0), half("in_proj", 8))
	a.Assemble("k", device.Matrix, tensor.Shape{8, 4}, half("in_proj", 0), half("in_proj", 4))
	s.Assemble("out", device.Matrix, tensor.Shape{6, 4}, device.Slice{Name: "projection", Rows: 6, Transposed: true})
	s.Assemble("norm", device.Vector, tensor.Shape{8}, half("shift", 4), half("shift", 0))
	if surplus, err := s.Finish(nil); err != nil || len(surplus) > 0 {
		t.Fatal(surplus, err)
	}
	want := []device.Param{
		{Name: "a.q and v", Layout: device.Matrix, DType: tensor.F16, Shape: tensor.Shape{8, 4}, Resident: tensor.I8, From: []device.Slice{half("a.q", 0), half("a.in_proj", 8)}},
		{Name: "a.k", Layout: device.Matrix, DType: tensor.F16, Shape: tensor.Shape{8, 4}, Resident: tensor.I8, From: []device.Slice{half("a.in_proj", 0), half("a.in_proj", 4)}},
		{Name: "out", Layout: device.Matrix, DType: tensor.BF16, Shape: tensor.Shape{6, 4}, Resident: tensor.I8, From: []device.Slice{{Name: "projection", Rows: 6, Transposed: true}}},
		{Name: "norm", Layout: device.Vector, DType: tensor.F32, Shape: tensor.Shape{8}, From: []device.Slice{half("shift", 4), half("shift", 0)}},
	}
	if diff := cmp.Diff(want, s.Manifest().Params); diff != "" {
		t.Error(diff)
	}
}

// What parameters cannot be assembled from is reported by its own name, once, behind what else is wrong.
func TestScopeReportsUnassembled(t *testing.T) {
	s := NewScope(file{
		"fused":    {tensor.F16, tensor.Shape{13, 4}}, // a row that nobody uses
		"k":        {tensor.F32, tensor.Shape{4, 4}},
		"fp8scale": {tensor.Invalid, tensor.Shape{4}},
		"flat":     {tensor.F16, tensor.Shape{16}},
		"out":      {tensor.F16, tensor.Shape{6, 4}},
		"p":        {tensor.F16, tensor.Shape{4, 4}}, // which is made of others
	})
	rows := func(name string, first, n int) device.Slice {
		return device.Slice{Name: name, FirstRow: first, Rows: n}
	}
	s.Assemble("p", device.Matrix, tensor.Shape{8, 4}, rows("fused", 0, 4), rows("gone", 0, 4))
	s.Assemble("r", device.Matrix, tensor.Shape{16, 4}, rows("fused", 4, 8), rows("gone", 4, 4), rows("k", 0, 4))
	s.Assemble("v", device.Vector, tensor.Shape{4}, rows("fp8scale", 0, 4))
	s.Assemble("f", device.Matrix, tensor.Shape{4, 4}, rows("flat", 0, 4))
	s.Assemble("t", device.Matrix, tensor.Shape{6, 4}, device.Slice{Name: "out", Rows: 6, Transposed: true})
	s.Vector("bias", 4)
	for range 2 { // asking again changes nothing
		_, err := s.Finish(nil)
		var all TensorErrors
		if !errors.As(err, &all) {
			t.Fatalf("%v, want TensorErrors", err)
		}
		const file = "model.safetensors"
		want := TensorErrors{
			{file, "bias", Missing, "[4]", "no such tensor"},
			{file, "fused", Misshapen, "[12, 4]", "[13, 4]"},
			{file, "gone", Missing, "[8, 4]", "no such tensor"},
			{file, "k", Unsupported, "F16, as what it is put together with", "F32"},
			{file, "fp8scale", Unsupported, "F64, F32, F16, BF16, F8_E4M3 or F8_E5M2", "F8_E8M0"},
			{file, "flat", Misshapen, "[4, 4]", "[16]"},
			{file, "out", Misshapen, "[4, 6]", "[6, 4]"},
			{file, "p", Surplus, "no tensor of that name", "F16 [4, 4]"},
		}
		if diff := cmp.Diff(want, all); diff != "" {
			t.Error(diff)
		}
	}
}
