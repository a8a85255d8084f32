package modeldir

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

// Network is one network of a model: its parameters are known and checked, and none is loaded.
// Close it when no more loading follows; its manifest and tapes outlive that.
type Network struct {
	manifest *device.Manifest
	tapes    *device.Tapes[shape]
	weights  weightFile
	warnings []string
}

// Tensor is a tensor of a network's weight files.
type Tensor struct {
	Name, File string
	DType      tensor.DType // tensor.Invalid if it is none of ours
	Shape      tensor.Shape // not to be written to
}

// Tensors lists what the weight files have, by name, be it used by the network or not.
func (n *Network) Tensors() []Tensor {
	var out []Tensor
	for _, name := range n.weights.Names() {
		dtype, shape, _ := n.weights.Info(name)
		out = append(out, Tensor{Name: name, File: n.weights.Where(name), DType: dtype, Shape: shape})
	}
	return out
}

// Manifest lists the parameters, for Device.Load and Device.WeightBytes.
func (n *Network) Manifest() *device.Manifest { return n.manifest }

// Source gives the stored parameters, for Device.Load.
func (n *Network) Source() device.Source { return n.weights }

// Warnings tells, without paths, what is odd about weight files that are used all the same: tensors that are ignored, and
// a variant for want of plain weights.
func (n *Network) Warnings() []string { return n.warnings }

// Watch takes prints of the parameters that are read from now on. Reading bytes that p has and that are others now is an error
// that wraps weights.ErrChanged.
func (n *Network) Watch(p *weights.Prints) { n.weights.Watch(p) }

// Print is a digest of the parameters' tensors, their names and bytes as p has them, and whether p has them all.
func (n *Network) Print(p *weights.Prints) (digest [sha256.Size]byte, known bool) {
	var names []string
	for _, t := range n.manifest.Tensors() {
		names = append(names, t.Name)
	}
	slices.Sort(names)
	sums, known := n.weights.Sums(p, names)
	if !known {
		return digest, false
	}
	var b strings.Builder
	for i, name := range names {
		fmt.Fprintf(&b, "%q %08x\n", name, sums[i])
	}
	return sha256.Sum256([]byte(b.String())), true
}

// Close closes the weight files. Idempotent.
func (n *Network) Close() error { return n.weights.Close() }

// StoredBytes is the size of the parameters as they are stored.
func (n *Network) StoredBytes() int64 {
	var sum int64
	for _, p := range n.manifest.Params {
		elems, _ := p.Shape.Elems()
		sum += int64(elems) * int64(p.DType.Size())
	}
	return sum
}

// open declares a network over the weight files of a folder and reports every tensor that is missing or does not
// fit, as nn.TensorErrors.
func (d *Dir) open(folder string, declare func(*nn.Scope), ignore func(string) bool) (Network, error) {
	files, err := openWeights(filepath.Join(d.path, folder))
	if err != nil {
		return Network{}, err
	}
	s := nn.NewScope(files)
	s.Keep(d.Resident)
	declare(s)
	surplus, err := s.Finish(ignore)
	if err != nil {
		_ = files.Close() // read-only, and the declaration's error says more
		return Network{}, err
	}
	return Network{manifest: s.Manifest(), tapes: &device.Tapes[shape]{}, weights: files, warnings: warnings(folder, files, surplus)}, nil
}
