// Package weights opens the tensors of a model: one file, of safetensors or by torch.save, or several with an index.
// Headers and pickles are checked completely before anything is read, and a file that is not exactly what it
// says it is gives an Error, as does a NaN or an infinity among the numbers that are read.
//
// Tensors are read, not mapped: a file that is cut while it is open gives an Error instead of
// killing the process, and its pages are not charged to it.
//
// The package may import engine/kernel, engine/tensor and engine/weights/torchfile only.
package weights

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// Set is the tensors of one or more open files. It is used by one goroutine at a time, its sections by any number.
type Set struct {
	home    string // where a tensor that no file has belongs
	variant string // see Variant
	files   []*file
	owners  map[string]*file
	closed  bool

	allowBare bool // files may end behind their headers
}

// OpenFile opens one file: safetensors, or a zip or an older file of torch.save. Which it is its first bytes tell, not its name.
// Tensors of nested dicts are named by their keys, joined by dots: state_dict.model.weight. Errors are an Error.
func OpenFile(path string) (*Set, error) {
	s := &Set{home: path, owners: map[string]*file{}}
	if err := s.add(path); err != nil {
		return nil, err
	}
	return s, nil
}

// add opens a file and takes its tensors into the set.
func (s *Set) add(path string) error {
	f, err := openFile(path, s.allowBare)
	if err != nil {
		return err
	}
	s.files = append(s.files, f)
	for name := range f.tensors {
		if other := s.owners[name]; other != nil {
			return &Error{File: f.path, Tensor: name, Expected: "the tensor in one file only", Got: "it in " + other.path + " too"}
		}
		s.owners[name] = f
	}
	return nil
}

// Info gives the type and shape a tensor is read in: those it is stored in, but F32 for F64, and F16, which has all their
// values, for F8_E4M3 and F8_E5M2. The type is tensor.Invalid when it is one that this project cannot read, such as U16. The
// shape must not be written to.
func (s *Set) Info(name string) (tensor.DType, tensor.Shape, bool) {
	f := s.owners[name]
	if f == nil {
		return tensor.Invalid, nil, false
	}
	e := f.tensors[name]
	switch e.dtype {
	case float64s:
		return tensor.F32, e.shape, true
	case float8E4M3, float8E5M2:
		return tensor.F16, e.shape, true
	}
	dtype, _ := tensor.ParseDType(e.dtype)
	return dtype, e.shape, true
}

// TypeName is the stored type as the file names it, for errors; empty if there is no such tensor.
func (s *Set) TypeName(name string) string {
	f := s.owners[name]
	if f == nil {
		return ""
	}
	return shorten(f.tensors[name].dtype)
}

// Variant is what tells the names of the files from those that a library reads by itself, as fp16 does in
// model.fp16.safetensors; empty if nothing does.
func (s *Set) Variant() string { return s.variant }

// Where names the file that has the tensor, or that a missing one belongs in (the index, when
// there is one).
func (s *Set) Where(name string) string {
	if f := s.owners[name]; f != nil {
		return f.path
	}
	return s.home
}

// Names lists every tensor, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.owners)) }

// Scaled names the first tensor that tells that matrices are not the numbers they are stored as but want a factor beside them:
// ComfyUI's scaled fp8 and its like. It is empty if there is none, and the numbers are the numbers.
func (s *Set) Scaled() string {
	for _, name := range s.Names() {
		switch last := name[strings.LastIndexByte(name, '.')+1:]; last {
		case "scaled_fp8", "scale_weight", "weight_scale", "weight_scale_2", "comfy_quant":
			return name
		}
	}
	return ""
}

// Metadata is what safetensors files say of themselves; of several files all of it, where they differ the first one's.
// Files of torch have none.
func (s *Set) Metadata() map[string]string {
	all := map[string]string{}
	for _, f := range slices.Backward(s.files) {
		maps.Copy(all, f.metadata)
	}
	return all
}

// Section gives the bytes of a tensor in the type that Info tells, little-endian and row-major. Any number of sections may be
// read at once, until Close. Errors, those of reading too, are an Error; so is a NaN or an infinity among floating point values,
// but for one that two reads share.
func (s *Set) Section(name string) (*io.SectionReader, error) {
	f := s.owners[name]
	if f == nil {
		return nil, &Error{File: s.home, Tensor: name, Expected: "the tensor", Got: "no such tensor"}
	}
	if s.closed {
		return nil, &Error{File: f.path, Tensor: name, Expected: "an open file", Got: "a closed one", Err: fs.ErrClosed}
	}
	e := f.tensors[name]
	if bitsPerElement(e.dtype) == 0 {
		broken := e.fault("a type of the safetensors format", e.dtype)
		broken.File = f.path
		return nil, broken
	}
	return f.section(e), nil
}

// Watch takes prints of all that is read from now on. Bytes that p has and that are others now are an Error that wraps ErrChanged.
func (s *Set) Watch(p *Prints) {
	for _, f := range s.files {
		f.prints = p
	}
}

// Data reads the bytes of a Section at once. Errors are an Error.
func (s *Set) Data(name string) ([]byte, error) {
	section, err := s.Section(name)
	if err != nil {
		return nil, err
	}
	data := make([]byte, section.Size())
	if _, err := section.ReadAt(data, 0); err != nil && len(data) > 0 {
		return nil, err
	}
	return data, nil
}

// Close closes the files. Info, Where and Names stay usable. Idempotent.
func (s *Set) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	var first error
	for _, f := range s.files {
		if err := f.close(); err != nil && first == nil {
			first = fmt.Errorf("weights: close %s: %w", f.path, err)
		}
	}
	return first
}
