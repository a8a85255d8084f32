package lora

import (
	"io"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// Weights are the tensors of a file, and the differences that LoHa and LoKr make of theirs, as if these were tensors.
type Weights struct {
	Source
	made map[string]*made
}

// NewWeights adds the differences of layers.
func NewWeights(src Source, layers []*Layer) Weights {
	w := Weights{Source: src, made: map[string]*made{}}
	for _, l := range layers {
		if l.made != nil {
			w.made[l.made.name] = l.made
		}
	}
	return w
}

// Info implements nn.Source.
func (w Weights) Info(name string) (tensor.DType, tensor.Shape, bool) {
	if m := w.made[name]; m != nil {
		return tensor.F32, m.shape, true
	}
	return w.Source.Info(name)
}

// Section implements device.Source.
func (w Weights) Section(name string) (*io.SectionReader, error) {
	if m := w.made[name]; m != nil {
		return m.section(w.Source)
	}
	return w.Source.Section(name)
}

// Of are the tensors that one is made of: itself, if it is a tensor.
func (w Weights) Of(name string) []string {
	if m := w.made[name]; m != nil {
		return m.of
	}
	return []string{name}
}
