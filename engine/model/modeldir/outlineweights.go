package modeldir

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

// Keep is the type in which the networks of each stage keep their weights, see Dir.Resident.
type Keep struct {
	Encoder, Denoiser, Decoder tensor.DType
}

// declare gives a part its manifest. Types and shapes are those of the headers, if there are any. Without, shapes are
// the config's, and all tensors have one type: that which makes an index's total_size, else the config's torch_dtype,
// else F16, as weights are mostly published.
func (o *Outline) declare(p *Part, folder string, declare func(*nn.Scope), ignore func(string) bool, keep tensor.DType) error {
	p.Folder, p.dir = folder, filepath.Join(o.Path, folder)
	h, err := weights.OpenHeaders(p.dir, namingOf(folder))
	if err != nil {
		return err
	}
	p.Complete = h.Complete
	var src nn.Source = h.Set
	if h.Set == nil {
		absent := &absentWeights{path: h.Path, names: h.Names}
		if absent.dtype, err = parse(o.Path, folder, torchType); err != nil {
			return err
		}
		s := nn.NewScope(absent)
		declare(s)
		absent.learn(s.Manifest(), h.Bytes)
		src = absent
	}
	s := nn.NewScope(src)
	s.Keep(keep)
	declare(s)
	p.Manifest = s.Manifest()
	surplus, err := s.Finish(ignore)
	if err == nil && h.Set != nil {
		p.Warnings = append(warnings(folder, h.Set, surplus), p.Warnings...)
	}
	return err
}

// torchType reads the type that transformers notes in a config.
func torchType(data []byte) (tensor.DType, error) {
	r, err := config.Parse(data)
	if err != nil {
		return tensor.Invalid, err
	}
	types := map[string]tensor.DType{"float16": tensor.F16, "float32": tensor.F32, "bfloat16": tensor.BF16}
	for _, key := range []string{"torch_dtype", "dtype"} { // before transformers 5, and since
		if r.Has(key) && !r.IsNull(key) {
			return types[r.String(key, "float16", "float32", "bfloat16")], r.Err()
		}
	}
	return tensor.F16, nil
}

// absentWeights describes tensors that no file has: as an index lists them, or else all that are asked for.
type absentWeights struct {
	path   string
	names  []string // sorted; nil without an index
	dtype  tensor.DType
	shapes map[string]tensor.Shape
}

// learn takes shapes from a manifest that was declared over w, and the type from the bytes of its tensors, if those
// are known.
func (w *absentWeights) learn(m *device.Manifest, bytes int64) {
	w.shapes = map[string]tensor.Shape{}
	var elems int64
	for _, t := range m.Tensors() {
		n, _ := t.Shape.Elems()
		elems += int64(n)
		w.shapes[t.Name] = t.Shape
	}
	switch {
	case bytes == 4*elems:
		w.dtype = tensor.F32
	case bytes == 2*elems && w.dtype == tensor.F32:
		w.dtype = tensor.F16
	}
}

// Info implements nn.Source. Without an index, spellings are the current ones of diffusers and those of transformers before 5.
func (w *absentWeights) Info(name string) (tensor.DType, tensor.Shape, bool) {
	shape, ok := w.shapes[name], strings.HasPrefix(name, "text_model.")
	switch {
	case w.names != nil:
		_, ok = slices.BinarySearch(w.names, name)
	case shape != nil:
		ok = true
	}
	return w.dtype, shape, ok
}

// TypeName implements nn.Source.
func (w *absentWeights) TypeName(string) string { return w.dtype.String() }

// Where implements nn.Source.
func (w *absentWeights) Where(string) string { return w.path }

// Names implements nn.Source.
func (w *absentWeights) Names() []string { return w.names }
