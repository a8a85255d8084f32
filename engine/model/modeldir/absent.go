package modeldir

import (
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

// absentWeights describes tensors that no file has: as an index lists them, or else all that are asked for.
type absentWeights struct {
	path   string
	names  []string // sorted; nil without an index
	dtype  tensor.DType
	shapes map[string]tensor.Shape
}

// absent are the weights of a folder whose headers tell no shapes: those are what declare asks for.
func (d *Dir) absent(folder string, h weights.Headers, declare func(*nn.Scope)) (*absentWeights, error) {
	w := &absentWeights{path: h.Path, names: h.Names}
	var err error
	if w.dtype, err = Config(d, folder, torchType); err != nil {
		return nil, err
	}
	s := nn.NewScope(w)
	declare(s)
	w.learn(s.Manifest(), h.Bytes)
	return w, nil
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

// Section implements device.Source: nothing is there.
func (w *absentWeights) Section(name string) (*io.SectionReader, error) {
	return nil, fmt.Errorf("%s: %s: %w", w.path, name, fs.ErrNotExist)
}

// Watch has nothing to watch.
func (w *absentWeights) Watch(*weights.Prints) {}

// Sums knows none.
func (w *absentWeights) Sums(*weights.Prints, []string) ([]uint32, bool) { return nil, false }

// Close has nothing to close.
func (w *absentWeights) Close() error { return nil }
