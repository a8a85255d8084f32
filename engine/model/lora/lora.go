// Package lora reads LoRAs (Hu et al. 2021, arXiv 2106.09685) and their relatives of LyCORIS (Yeh et al. 2023, arXiv 2309.14859), by all
// names that trainers give them: what is added to the weights of a model's layers, which stay as they are.
//
//	LoRA, LoCon  alpha/r up down, or alpha/r up mid down
//	LoHa         alpha/r (w1_a w1_b) * (w2_a w2_b), element by element
//	LoKr         alpha/r kron(w1, w2); 1 kron(w1, w2) where neither is a product
//	full         diff, diff_b; of norms w_norm, b_norm
//
// The package may import the engine's device, nn, tensor and model/original packages.
package lora

import (
	"fmt"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Error is a file that is no LoRA that can be used.
type Error struct {
	Tensor   string // empty where none is at fault
	Expected string
	Got      string
	Err      error // the cause, if it has one
}

// Error reads `tensor "a.alpha": expected a number, got [3]`.
func (e *Error) Error() string {
	if e.Tensor == "" {
		return fmt.Sprintf("expected %s, got %s", e.Expected, e.Got)
	}
	return fmt.Sprintf("tensor %.100q: expected %s, got %s", e.Tensor, e.Expected, e.Got)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Layer is what a LoRA has for one layer.
type Layer struct {
	Key     string // see Key
	Named   string // as the file has it, without what its tensors are
	Factor  float64
	path    string // without prefix
	tensors [roles]string
	made    *made // of LoHa and LoKr
	// Of a declared one: the weights of its adaptation, in the LoRA's manifest.
	weights device.Adaptation
}

// File is what a file has for the parts of a model.
type File struct {
	Parts map[Part][]*Layer // each in the order of Key
	Words bool              // it brings textual inversions along
}

// accepted is what is read.
const accepted = "a LoRA of linear layers and convolutions (LoRA, LoCon, LoHa, LoKr, full)"

// Read sorts the tensors of a file, and reads its factors; a is what stands beside them. whole is the part that a file without prefixes is for.
func Read(src Source, whole Part, a Alphas) (*File, error) {
	f := &File{Parts: map[Part][]*Layer{}}
	byKey := map[Part]map[string]*Layer{}
	for _, name := range src.Names() {
		if strings.HasPrefix(name, Bundled) {
			f.Words = true
			continue
		}
		if is := stranger(name); is != "" {
			return nil, &Error{Tensor: name, Expected: accepted, Got: is}
		}
		end, r := ending(name)
		if r == 0 {
			return nil, &Error{Tensor: name, Expected: accepted, Got: "a tensor of something else"}
		}
		named := name[:len(name)-len(end)]
		part, layer := split(named, whole)
		key := Key(layer)
		if byKey[part] == nil {
			byKey[part] = map[string]*Layer{}
		}
		l := byKey[part][key]
		if l == nil {
			l = &Layer{Key: key, Named: named, path: layer}
			byKey[part][key], f.Parts[part] = l, append(f.Parts[part], l)
		}
		if l.tensors[r] != "" {
			return nil, &Error{Tensor: name, Expected: "one such tensor of its layer", Got: fmt.Sprintf("%.100q too", l.tensors[r])}
		}
		l.tensors[r] = name
	}
	if len(f.Parts) == 0 {
		return nil, &Error{Expected: accepted, Got: "no tensors of one"}
	}
	for part, layers := range f.Parts {
		slices.SortFunc(layers, func(a, b *Layer) int { return strings.Compare(a.Key, b.Key) })
		for _, l := range layers {
			if err := l.check(src); err != nil {
				return nil, err
			}
			if err := l.factor(src, part, a); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

func (l *Layer) has(r role) bool { return l.tensors[r] != "" }

// check refuses layers of which tensors are missing, or that are of two kinds.
func (l *Layer) check(src Source) error {
	if l.has(diff) || l.has(diffBias) || l.has(normScale) || l.has(normShift) {
		return l.checkFull()
	}
	hada, kron := l.any(hadaFirst, hadaSecond+2), l.any(kronFirst, kronSecond+3)
	pair := l.has(down) || l.has(up) || l.has(mid)
	switch {
	case hada && (kron || pair) || kron && pair:
		return &Error{Tensor: l.Named, Expected: "one kind of difference for a layer", Got: "two"}
	case hada || kron:
		var err error
		l.made, err = newMade(src, l)
		return err
	case !pair:
		return &Error{Tensor: l.tensors[alpha], Expected: "tensors of its layer beside it", Got: "none"}
	case !l.has(down):
		return &Error{Tensor: l.tensors[up], Expected: "a down beside it", Got: "none"}
	case !l.has(up):
		return &Error{Tensor: l.tensors[down], Expected: "an up beside it", Got: "none"}
	}
	_, d, _ := src.Info(l.tensors[down])
	_, u, _ := src.Info(l.tensors[up])
	if len(d) != 2 && len(d) != 4 || d[0] < 1 || d[1] < 1 {
		return &Error{Tensor: l.tensors[down], Expected: "[rank, in] or [rank, in, height, width], of rank 1 or more", Got: d.String()}
	}
	inner := d[0]
	if l.has(mid) {
		_, m, _ := src.Info(l.tensors[mid])
		if !flat(m) && len(m) != 4 || m[1] != inner {
			return &Error{Tensor: l.tensors[mid], Expected: fmt.Sprintf("[any, %d, height, width], the rank of what is beside it", inner), Got: m.String()}
		}
		inner = m[0]
	}
	if !flat(u) || u[1] != inner {
		return &Error{Tensor: l.tensors[up], Expected: fmt.Sprintf("[out, %d], the rank of what is beside it", inner), Got: u.String()}
	}
	return nil
}

func (l *Layer) checkFull() error {
	first, second := diff, diffBias
	if l.has(normScale) || l.has(normShift) {
		first, second = normScale, normShift
	}
	for r, name := range l.tensors {
		if name != "" && role(r) != first && role(r) != second && role(r) != alpha {
			return &Error{Tensor: name, Expected: "one kind of difference for a layer", Got: "two"}
		}
	}
	if !l.has(first) || first == normScale && !l.has(second) {
		return &Error{Tensor: l.Named, Expected: "both the differences of weight and bias", Got: "one of them"}
	}
	return nil
}

// any reports whether the layer has a tensor of some roles.
func (l *Layer) any(from, to role) bool {
	return slices.ContainsFunc(l.tensors[from:to+1], func(name string) bool { return name != "" })
}

// flat reports whether a shape is that of a matrix, or of convolutions of one place.
func flat(s tensor.Shape) bool {
	return (len(s) == 2 || len(s) == 4 && s[2] == 1 && s[3] == 1) && s[0] > 0 && s[1] > 0
}

// Declare declares the weights of layers, whose tensors Read has checked.
func Declare(s *nn.Scope, layers []*Layer) {
	matrix := func(name string) device.Weight {
		_, shape, _ := s.Source().Info(name)
		switch {
		case len(shape) == 1:
			return s.Vector(name, shape[0])
		case flat(shape):
			return s.Matrix(name, shape[0], shape[1])
		case len(shape) == 4:
			return s.Filter(name, shape[0], shape[1], shape[2], shape[3])
		}
		return s.Matrix(name, 0, 0) // which it is not
	}
	one := func(l *Layer, r role) device.Weight {
		if !l.has(r) {
			return device.Weight{}
		}
		return matrix(l.tensors[r])
	}
	for _, l := range layers {
		switch w := &l.weights; {
		case l.made != nil:
			w.Added = matrix(l.made.name)
		case l.has(normScale):
			w.Added, w.AddedBias = one(l, normScale), one(l, normShift)
		case l.has(diff):
			w.Added, w.AddedBias = one(l, diff), one(l, diffBias)
		default:
			w.Down, w.Mid, w.Up = one(l, down), one(l, mid), one(l, up)
		}
	}
}
