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

// Options is how a network is opened.
type Options struct {
	// Resident is the type in which the weights of linear layers and convolutions are kept on a device, see device.Param;
	// the zero tensor.Invalid is as stored.
	Resident tensor.DType
	// Outline is for plans: the weights may be absent, and cannot be read. Types and shapes are those of headers, if there
	// are any. Without, shapes are the config's, and all tensors have one type: that which makes an index's total_size,
	// else the config's torch_dtype, else F16, as weights are mostly published.
	Outline bool
}

// Network is one network of a model: its parameters are known and checked, and none is loaded.
// Close it when no more loading follows; its manifest and tapes outlive that.
type Network struct {
	manifest *device.Manifest
	tapes    *device.Tapes[tapeOf]
	weights  weightFile
	complete bool
	warnings []string
}

// weightFile is what a network needs of its weight files.
type weightFile interface {
	nn.Source
	device.Source
	Watch(p *weights.Prints)
	Sums(p *weights.Prints, names []string) (sums []uint32, known bool)
	Close() error
}

// Tensor is a tensor of a network's weight files.
type Tensor struct {
	Name, File string
	DType      tensor.DType
	Shape      tensor.Shape // as stored; not to be written to
}

// Files is the network itself, of what embeds it.
func (n *Network) Files() *Network { return n }

// Tensors lists what the network uses of its weight files, by name.
func (n *Network) Tensors() []Tensor {
	var out []Tensor
	for _, name := range n.names() {
		dtype, shape, _ := n.weights.Info(name)
		out = append(out, Tensor{Name: name, File: n.weights.Where(name), DType: dtype, Shape: shape})
	}
	return out
}

func (n *Network) names() []string {
	var names []string
	for _, t := range n.manifest.Tensors() {
		names = append(names, t.Name)
	}
	slices.Sort(names)
	return names
}

// Manifest lists the parameters, for Device.Load and Device.WeightBytes.
func (n *Network) Manifest() *device.Manifest { return n.manifest }

// Source gives the stored parameters, for Device.Load.
func (n *Network) Source() device.Source { return n.weights }

// Complete reports whether all weights are there; they are, but in an outline.
func (n *Network) Complete() bool { return n.complete }

// Warnings tells, without paths, what is odd about weight files that are used all the same: tensors that are ignored, and
// a variant for want of plain weights.
func (n *Network) Warnings() []string { return n.warnings }

// Watch takes prints of the parameters that are read from now on. Reading bytes that p has and that are others now is an error
// that wraps weights.ErrChanged.
func (n *Network) Watch(p *weights.Prints) { n.weights.Watch(p) }

// Print is a digest of the parameters' tensors, their names and bytes as p has them, and whether p has them all.
func (n *Network) Print(p *weights.Prints) (digest [sha256.Size]byte, known bool) {
	names := n.names()
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

// Network declares a network over the weight files of a folder and reports every tensor that is missing or does not
// fit, as nn.TensorErrors. Other errors are those of the weight files. Tensors that ignore excuses may be there unused.
func (d *Dir) Network(folder string, o Options, declare func(*nn.Scope), ignore func(string) bool) (n Network, err error) {
	var variant string
	n.complete = true
	own := renamed{stored: d.names}
	part := d.parts[folder]
	if part.file != "" {
		if err = n.open(part.file, o); err == nil {
			of := part.source(n.weights)
			own, n.weights = of.renamed, of
		}
	} else if d.file && d.parts == nil {
		if err = n.open(d.path, o); err == nil && d.names != nil {
			own.weightFile = n.weights
			n.weights = own
		}
	} else if o.Outline {
		var h weights.Headers
		if h, err = weights.OpenHeaders(d.File(folder), namingOf(folder)); err != nil {
			return n, err
		}
		n.complete = h.Complete
		if h.Set == nil {
			n.weights, err = d.absent(folder, h, declare)
		} else {
			n.weights, variant = h.Set, h.Set.Variant()
		}
	} else {
		var set *weights.Set
		if set, err = weights.OpenDir(d.File(folder), namingOf(folder)); err == nil {
			n.weights, variant = set, set.Variant()
		}
	}
	if err != nil {
		return Network{}, err
	}
	s := nn.NewScope(n.weights)
	s.Keep(o.Resident)
	declare(s)
	n.manifest, n.tapes = s.Manifest(), &device.Tapes[tapeOf]{}
	surplus, err := s.Finish(ignore)
	if err != nil {
		_ = n.Close() // read-only, and the declaration's error says more
		return Network{}, own.asStored(err)
	}
	if folder == UNetFolder {
		n.warnings = append(n.warnings, d.surplus...)
	}
	if variant != "" {
		n.warnings = append(n.warnings, fmt.Sprintf("%s: uses the %s variant, there are no other weights than %s", folder, variant, filepath.Base(n.weights.Where(""))))
	}
	if len(surplus) > 0 {
		n.warnings = append(n.warnings, folder+": ignores tensors that the network does not have: "+someOf(surplus))
	}
	return n, nil
}

// open opens a single file, of which a plan needs the header.
func (n *Network) open(file string, o Options) error {
	set, err := openSet(file, o.Outline)
	if err != nil {
		return err
	}
	n.weights, n.complete = set, set.Complete()
	return nil
}

// openSet opens a file, which may be the header alone for an outline.
func openSet(file string, outline bool) (*weights.Set, error) {
	if outline {
		return weights.OpenOutline(file)
	}
	return weights.OpenFile(file)
}

// namingOf is how the library that a network's folder belongs to names its weights.
func namingOf(folder string) weights.Naming {
	if strings.HasPrefix(folder, "text_encoder") || folder == ImageEncoderFolder {
		return weights.Transformers()
	}
	return weights.Diffusers()
}

// shownSurplus bounds a warning: a file of another network has thousands of tensors.
const shownSurplus = 5

// someOf names the first few of names, and how many more there are.
func someOf(names []string) string {
	var shown []string
	for _, name := range names[:min(len(names), shownSurplus)] {
		shown = append(shown, fmt.Sprintf("%.100q", name))
	}
	text := strings.Join(shown, ", ")
	if more := len(names) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// IgnoredKeys warns of keys of a config file, named within the model, that its class does not know; nil if there are none.
func IgnoredKeys(file string, keys []string) []string {
	if len(keys) == 0 {
		return nil
	}
	return []string{file + ": ignores keys that its class does not have: " + someOf(keys)}
}

// keyWarnings are of the config of a network, which was read before.
func (d *Dir) keyWarnings(folder string, unknown func(config []byte) []string) []string {
	data, err := d.Read(folder, configFile)
	if err != nil {
		return nil
	}
	return IgnoredKeys(folder+"/"+configFile, unknown(data))
}
