// Package inversion reads textual inversions (Gal et al. 2022, arXiv 2208.01618): a word, and the vectors that stand for it among the
// embeddings of tokens.
//
// The package may import engine/weights and engine/tensor.
package inversion

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

// What a file may have. Published ones have up to some dozens of vectors of at most 1280 numbers; a chunk of a prompt holds 75.
const (
	maxVectors = 1 << 10
	maxWidth   = 1 << 14
	maxTensors = 16
	// maxValue is float16's largest number: networks make infinities of what is much larger.
	maxValue = 65504
)

// Vectors are those for one text encoder, [N, Width].
type Vectors struct {
	Key      string // the name of their tensor
	N, Width int
	Values   []float32
}

// Inversion is a file, read. Words are known even of one that cannot be used.
type Inversion struct {
	File     string   // its name, without folders
	Words    []string // that name it in a prompt, one of a file that is used
	Encoders []Vectors
	Digest   [sha256.Size]byte // of the values
	Err      error             // why it cannot be used: an Error
}

// Error is a file that is no textual inversion that can be used.
type Error struct {
	File     string // without folders
	Tensor   string // empty where none is at fault
	Expected string
	Got      string
	Err      error // the cause, if it has one; it may have paths
}

// Error reads "style.pt: tensor "clip_l": expected finite numbers, got NaN".
func (e *Error) Error() string {
	if e.Tensor == "" {
		return fmt.Sprintf("%s: expected %s, got %s", e.File, e.Expected, e.Got)
	}
	return fmt.Sprintf("%s: tensor %.80q: expected %s, got %s", e.File, e.Tensor, e.Expected, e.Got)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is tells by its name whether a file may be one. Pictures can carry embeddings for other programs; they are among them so that who names one
// hears that it is not read.
func Is(file string) bool {
	return slices.Contains([]string{".safetensors", ".pt", ".bin", ".pth", ".ckpt", ".png", ".webp", ".jxl"}, strings.ToLower(filepath.Ext(file)))
}

// MaxLoose bounds the size of a file that is looked into although nothing tells that it is one: published ones have less than 1 MB, and
// most others more.
const MaxLoose = 4 << 20

// Akin reports whether names of tensors are those of a layout that nothing else has. Files of diffusers have none of their own.
func Akin(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return strings.HasPrefix(name, "string_to_param.") || slices.Contains([]string{"emb_params", "clip_l", "clip_g", "text_encoders_0", "text_encoders_1"}, name)
	})
}

// Read reads a file of any layout: A1111's, named by the file, with one tensor or one for each of two text encoders; diffusers', named by
// the key of its one tensor.
func Read(path string) *Inversion {
	base := filepath.Base(path)
	in := &Inversion{File: base, Words: []string{strings.TrimSuffix(base, filepath.Ext(base))}}
	set, err := weights.OpenFile(path)
	if err != nil {
		in.Err = in.of(err)
		return in
	}
	defer set.Close() //nolint:errcheck // it was only read
	in.readAt(set, "", set.Names())
	return in
}

// Bundled reads the textual inversions that a file brings along, whose tensors are called PREFIX, then a word and a dot, then as in
// a file of their own.
func Bundled(file string, set *weights.Set, prefix string) (out []*Inversion) {
	names := map[string][]string{} // by word
	for _, name := range set.Names() {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		for _, own := range []string{".string_to_param.", ".clip_", ".text_encoders_", ".emb_params", ".*", ""} {
			if at := strings.Index(rest, own); at > 0 || own == "" {
				if own == "" {
					at = max(0, strings.LastIndexByte(rest, '.'))
				}
				names[rest[:at]] = append(names[rest[:at]], strings.TrimPrefix(rest[at:], "."))
				break
			}
		}
	}
	for _, word := range slices.Sorted(maps.Keys(names)) {
		in := &Inversion{File: file, Words: []string{word}}
		in.readAt(set, prefix+word+".", names[word])
		in.Words = []string{word}
		out = append(out, in)
	}
	return out
}

// readAt reads the tensors of some names, which have a prefix in the file.
func (in *Inversion) readAt(set *weights.Set, prefix string, names []string) {
	keys, err := in.keys(names)
	if err == nil {
		err = in.read(set, prefix, keys)
	}
	if err != nil {
		in.Err, in.Encoders = err, nil
	}
}

// of is an error of the file's format as one of the file.
func (in *Inversion) of(err error) error {
	var e *weights.Error
	if !errors.As(err, &e) {
		var p *os.PathError
		if errors.As(err, &p) {
			return &Error{File: in.File, Expected: "a file that can be read", Got: p.Err.Error(), Err: err}
		}
		return &Error{File: in.File, Expected: "a file that can be read", Got: "another one", Err: err}
	}
	return &Error{File: in.File, Tensor: e.Tensor, Expected: e.Expected, Got: e.Got, Err: err}
}

// keys are the names of the vectors' tensors, by text encoder; a layout that has the word in the file sets it.
func (in *Inversion) keys(all []string) ([]string, error) {
	var names []string
	for _, name := range all {
		if !strings.HasPrefix(name, "string_to_token.") && name != "clip_l_out" && name != "clip_g_out" { // ids in training, and what is trained beside
			names = append(names, name)
		}
	}
	if len(names) == 0 || len(names) > maxTensors {
		return nil, &Error{File: in.File, Expected: "a textual inversion, of one tensor or one for each text encoder", Got: fmt.Sprintf("%d tensors", len(names))}
	}
	for _, pair := range [][]string{{"clip_l", "clip_g"}, {"text_encoders_0", "text_encoders_1"}} {
		if slices.Contains(names, pair[0]) || slices.Contains(names, pair[1]) {
			names = slices.DeleteFunc(slices.Clone(pair), func(key string) bool { return !slices.Contains(names, key) })
			return names, nil
		}
	}
	params := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !strings.HasPrefix(name, "string_to_param.") })
	switch {
	case len(params) > 0:
		names = params
	case slices.Contains(names, "emb_params"):
		names = []string{"emb_params"}
	case len(names) == 1 && names[0] == "*":
	default:
		in.Words = names
		if len(names) > 1 {
			in.Words = append(in.Words, strings.TrimSuffix(in.File, filepath.Ext(in.File)))
		}
	}
	if len(names) > 1 {
		return nil, &Error{File: in.File, Expected: "vectors of one word", Got: fmt.Sprintf("those of %d: %.200q", len(names), names)}
	}
	return names, nil
}

// read reads the vectors.
func (in *Inversion) read(set *weights.Set, prefix string, keys []string) error {
	sum := sha256.New()
	for _, own := range keys {
		key := prefix + own
		refuse := func(expected, got string) error {
			return &Error{File: in.File, Tensor: key, Expected: expected, Got: got}
		}
		dtype, shape, _ := set.Info(key)
		n := 1
		if len(shape) == 2 {
			n = shape[0]
		}
		width := 0
		if len(shape) > 0 {
			width = shape[len(shape)-1]
		}
		if len(shape) < 1 || len(shape) > 2 || n < 1 || n > maxVectors || width < 1 || width > maxWidth {
			return refuse(fmt.Sprintf("1 to %d vectors of 1 to %d numbers", maxVectors, maxWidth), fmt.Sprint(shape))
		}
		data, err := set.Data(key)
		if err != nil {
			return in.of(err)
		}
		values, err := tensor.Tensor{DType: dtype, Shape: shape, Data: data}.Float32s()
		if err != nil {
			return refuse("numbers of type F32, F16 or BF16", fmt.Sprint(cmp.Or(set.TypeName(key), dtype.String())))
		}
		for _, v := range values {
			if !(math.Abs(float64(v)) <= maxValue) {
				return refuse(fmt.Sprintf("finite numbers up to %d", maxValue), fmt.Sprint(v))
			}
		}
		if len(in.Encoders) > 0 && in.Encoders[0].N != n {
			return refuse(fmt.Sprintf("%d vectors, as %s has", in.Encoders[0].N, in.Encoders[0].Key), fmt.Sprint(n))
		}
		fmt.Fprintf(sum, "%q %d %d ", own, n, width)
		sum.Write(data)
		in.Encoders = append(in.Encoders, Vectors{own, n, width, values})
	}
	sum.Sum(in.Digest[:0])
	return nil
}
