package nn

import (
	"slices"
	"strconv"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Source describes the tensors of a model file (or of the files of one directory).
type Source interface {
	// Info gives the type and shape a tensor is read in. The type is tensor.Invalid when the file has the tensor in a
	// format this project cannot read.
	Info(name string) (tensor.DType, tensor.Shape, bool)
	// TypeName is the stored type as the file names it.
	TypeName(name string) string
	// Where names the file that has the tensor, or that a missing one belongs in.
	Where(name string) string
	// Names lists every tensor.
	Names() []string
}

// Scope declares the parameters of a network under a path of names, all scopes of a network into
// one manifest. A declaration never fails on the spot: what does not fit is collected, a weight of
// the wanted shape is handed out in its place, and Finish reports everything at once.
type Scope struct {
	path string
	decl *declaration
}

type declaration struct {
	src      Source
	resident tensor.DType // of matrices and filters
	manifest *device.Manifest
	used     map[string]bool
	sliced   map[string]bool // those of used that parameters are assembled from
	problems TensorErrors
}

// NewScope starts a declaration over the tensors of src.
func NewScope(src Source) *Scope {
	return &Scope{decl: &declaration{src: src, manifest: &device.Manifest{}, used: map[string]bool{}, sliced: map[string]bool{}}}
}

// Keep sets the type in which devices keep the matrices and filters declared from now on, on this scope and its
// relatives; the zero tensor.Invalid is as stored. See device.Param.
func (s *Scope) Keep(resident tensor.DType) { s.decl.resident = resident }

// Sub is the scope one name deeper: names declared in it are PATH.name.
func (s *Scope) Sub(name string) *Scope { return &Scope{path: s.full(name), decl: s.decl} }

// Index is the scope of the i-th element of a list: PATH.name.i.
func (s *Scope) Index(name string, i int) *Scope { return s.Sub(name + "." + strconv.Itoa(i)) }

// Manifest lists what has been declared on this scope and its relatives so far.
func (s *Scope) Manifest() *device.Manifest { return s.decl.manifest }

// Source is what the scope and its relatives look parameters up in, by whole names.
func (s *Scope) Source() Source { return s.decl.src }

// Has reports whether the source has the named tensor; it declares nothing. Networks use it to
// choose between the spellings of one parameter.
func (s *Scope) Has(name string) bool {
	_, _, ok := s.decl.src.Info(s.full(name))
	return ok
}

// Vector declares a bias or a norm's scale, stored [n].
func (s *Scope) Vector(name string, n int) device.Weight {
	return s.add(name, device.Vector, tensor.Shape{n}, nil)
}

// Matrix declares the weight of a linear layer, stored [out, in] or, as 1x1 convolutions are,
// [out, in, 1, 1].
func (s *Scope) Matrix(name string, out, in int) device.Weight {
	return s.add(name, device.Matrix, tensor.Shape{out, in}, tensor.Shape{out, in, 1, 1})
}

// Filter declares the weight of a convolution, stored [out, in, kh, kw].
func (s *Scope) Filter(name string, out, in, kh, kw int) device.Weight {
	return s.add(name, device.Filter, tensor.Shape{out, in, kh, kw}, nil)
}

// Table declares an embedding, stored [rows, dim], or in another shape that differs by dimensions of 1.
func (s *Scope) Table(name string, rows, dim int, stored ...int) device.Weight {
	return s.add(name, device.Table, tensor.Shape{rows, dim}, stored)
}

// Assemble declares a parameter that is made of rows of stored tensors, see device.Param.From. Their names are below the scope's
// path as its own is, which no tensor has. All are of one type, and each ends where the last slice of it does.
func (s *Scope) Assemble(name string, layout device.Layout, shape tensor.Shape, from ...device.Slice) device.Weight {
	p := device.Param{Name: s.full(name), Layout: layout, Shape: shape, From: slices.Clone(from)}
	for i := range p.From {
		slice := &p.From[i]
		slice.Name = s.full(slice.Name)
		s.decl.used[slice.Name], s.decl.sliced[slice.Name] = true, true
		if dtype, _, ok := s.decl.src.Info(slice.Name); ok && p.DType == tensor.Invalid {
			p.DType = dtype
		}
	}
	return s.decl.add(p)
}

// Finish reports every problem of the declaration as TensorErrors. surplus are the tensors, sorted, that were not declared
// and that ignore (which may be nil) does not excuse; beside problems, which they may explain, they are reported too.
func (s *Scope) Finish(ignore func(name string) bool) (surplus []string, err error) {
	d := s.decl
	for _, name := range d.src.Names() {
		if !d.used[name] && (ignore == nil || !ignore(name)) {
			surplus = append(surplus, name)
		}
	}
	slices.Sort(surplus)
	problems := append(slices.Clone(d.problems), d.unassembled()...)
	if len(problems) == 0 {
		return surplus, nil
	}
	for _, name := range surplus {
		got := "a tensor"
		if _, shape, ok := d.src.Info(name); ok {
			got = d.src.TypeName(name) + " " + shape.String()
		}
		problems = append(problems, &TensorError{
			File: d.src.Where(name), Tensor: name, Fault: Surplus, Expected: "no tensor of that name", Got: got,
		})
	}
	return nil, problems
}

func (s *Scope) full(name string) string {
	if s.path == "" {
		return name
	}
	return s.path + "." + name
}

func (s *Scope) add(name string, layout device.Layout, shape, alternative tensor.Shape) device.Weight {
	d, full := s.decl, s.full(name)
	d.used[full] = true
	problem := func(f Fault, expected, got string) {
		d.problems = append(d.problems, &TensorError{File: d.src.Where(full), Tensor: full, Fault: f, Expected: expected, Got: got})
	}
	dtype, stored, ok := d.src.Info(full)
	switch {
	case !ok:
		problem(Missing, shape.String(), "no such tensor")
	case !dtype.IsFloat():
		problem(Unsupported, "F64, F32, F16, BF16, F8_E4M3 or F8_E5M2", d.src.TypeName(full))
	case !stored.Equal(shape) && (alternative == nil || !stored.Equal(alternative)):
		problem(Misshapen, shape.String(), stored.String())
	}
	return d.add(device.Param{Name: full, Layout: layout, DType: dtype, Shape: shape})
}

func (d *declaration) add(p device.Param) device.Weight {
	if p.Layout == device.Matrix || p.Layout == device.Filter {
		p.Resident = d.resident
	}
	return d.manifest.Add(p)
}

// unassembled is what is wrong with the tensors that parameters are assembled from.
func (d *declaration) unassembled() (problems TensorErrors) {
	for _, t := range d.manifest.Tensors() {
		if !d.sliced[t.Name] {
			continue
		}
		problem := func(f Fault, expected, got string) {
			problems = append(problems, &TensorError{File: d.src.Where(t.Name), Tensor: t.Name, Fault: f, Expected: expected, Got: got})
		}
		dtype, stored, ok := d.src.Info(t.Name)
		switch {
		case !ok:
			problem(Missing, t.Shape.String(), "no such tensor")
		case !dtype.IsFloat():
			problem(Unsupported, "F64, F32, F16, BF16, F8_E4M3 or F8_E5M2", d.src.TypeName(t.Name))
		case dtype != t.DType:
			problem(Unsupported, t.DType.String()+", as what it is put together with", d.src.TypeName(t.Name))
		case !stored.Equal(t.Shape) && (len(t.Shape) != 2 || !stored.Equal(append(slices.Clone(t.Shape), 1, 1))):
			problem(Misshapen, t.Shape.String(), stored.String())
		}
	}
	return problems
}
