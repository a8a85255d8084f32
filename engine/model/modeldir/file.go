package modeldir

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/model/controlnet"
	"github.com/triptych-serving/triptych/engine/model/inversion"
	"github.com/triptych-serving/triptych/engine/model/ipadapter"
	"github.com/triptych-serving/triptych/engine/model/lora"
	"github.com/triptych-serving/triptych/engine/model/taesd"
	"github.com/triptych-serving/triptych/engine/model/upscale"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

// IsFile reports whether a path is a file, which may be a model by itself.
func IsFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// openFile opens a file that is a model or an adapter by itself, which its tensors tell; a checkpoint may have its autoencoder replaced. Errors
// are an Error or those of the weights.
func openFile(path, vae string, accepted []string) (*Dir, error) {
	d, err := identifyFile(path, vae)
	if err == nil && !slices.Contains(accepted, d.class) {
		return nil, &Error{Path: path, Expected: strings.Join(accepted, " or "), Got: d.class}
	}
	return d, err
}

// identifyFile is openFile of every class.
func identifyFile(path, vae string) (*Dir, error) {
	set, err := weights.OpenOutline(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = set.Close() }() // read-only
	d := &Dir{path: path, file: true}
	names := set.Names()
	refuse := func(expected, got string, err error) (*Dir, error) {
		return nil, &Error{Path: path, Expected: expected, Got: got, Err: err}
	}
	var other *controlnet.Error
	stored, control, err := controlnet.Locate(names)
	switch {
	case errors.As(err, &other):
		return refuse("a ControlNet", other.Got, err)
	case control:
		d.class, d.names = controlnet.Class, stored
	case ipadapter.Is(names):
		d.class = ClassIPAdapter
	case lora.Is(names):
		d.class = ClassLoRA
	default:
		_, notUpscaler := upscale.Of(set)
		if notUpscaler == nil {
			d.class = ClassUpscaler
			break
		}
		if _, tiny, err := taesd.Of(set, true); tiny && err == nil {
			d.class = ClassTiny
			break
		}
		whole, is, err := openCheckpoint(path, vae, set)
		if is {
			return whole, err
		}
		if _, is := findVAE(set); is {
			return openVAE(path, set)
		}
		if words, err := openInversion(path, names); words != nil || err != nil {
			return words, err
		}
		got := fmt.Sprintf("%d tensors of something else", len(names))
		if akin := (*upscale.Error)(nil); errors.As(notUpscaler, &akin) && akin.Akin {
			got = akin.Got
		}
		return refuse("a checkpoint, a ControlNet, an IP-Adapter, a LoRA, an upscaler, an autoencoder, a textual inversion or the decoder of a tiny autoencoder", got, nil)
	}
	return d, nil
}

// ClassInversion is that of a file with a textual inversion.
const ClassInversion = "TextualInversion"

// openInversion opens a file with a textual inversion; neither a Dir nor an error is something else. The error is an Error.
func openInversion(path string, names []string) (*Dir, error) {
	if info, err := os.Stat(path); err != nil || info.Size() > inversion.MaxLoose {
		return nil, nil
	}
	in := inversion.Read(path)
	if in.Err == nil {
		return &Dir{path: path, file: true, class: ClassInversion}, nil
	}
	var of *inversion.Error
	if !inversion.Akin(names) || !errors.As(in.Err, &of) {
		return nil, nil
	}
	got := of.Got
	if of.Tensor != "" {
		got = fmt.Sprintf("%s in tensor %.80q", got, of.Tensor)
	}
	return nil, &Error{Path: path, Expected: "a textual inversion, " + of.Expected, Got: got, Err: of}
}

// NameOf is the name of a model at a path: that of its folder, or of its repository in the hub's cache, or its file's without the extension.
func NameOf(path string) string {
	if !IsFile(path) {
		return cmp.Or(hubModel(path), filepath.Base(path))
	}
	return NameOfFile(path)
}

// NameOfFile is NameOf of what is known to be a file.
func NameOfFile(path string) string {
	name := filepath.Base(path)
	if short := strings.TrimSuffix(name, filepath.Ext(name)); short != "" {
		return short
	}
	return name
}

// renamed are weights whose tensors have other names than the network's.
type renamed struct {
	weightFile
	stored map[string]string // by the network's names
}

// name is the stored one; of a tensor that the file does not have, the network's.
func (r renamed) name(own string) string {
	if name, ok := r.stored[own]; ok {
		return name
	}
	return own
}

// Info implements nn.Source.
func (r renamed) Info(name string) (tensor.DType, tensor.Shape, bool) {
	if _, ok := r.stored[name]; !ok {
		return tensor.Invalid, nil, false
	}
	return r.weightFile.Info(r.name(name))
}

// TypeName implements nn.Source.
func (r renamed) TypeName(name string) string { return r.weightFile.TypeName(r.name(name)) }

// Where implements nn.Source.
func (r renamed) Where(name string) string { return r.weightFile.Where(r.name(name)) }

// Names implements nn.Source.
func (r renamed) Names() (out []string) {
	for own := range r.stored {
		if _, _, there := r.Info(own); there {
			out = append(out, own)
		}
	}
	slices.Sort(out)
	return out
}

// Section implements device.Source.
func (r renamed) Section(name string) (*io.SectionReader, error) {
	return r.weightFile.Section(r.name(name))
}

// Sums tells the checksums of tensors.
func (r renamed) Sums(p *weights.Prints, names []string) ([]uint32, bool) {
	stored := make([]string, len(names))
	for i, name := range names {
		stored[i] = r.name(name)
	}
	return r.weightFile.Sums(p, stored)
}

// asStored gives tensors in an error the names that the file has for them.
func (r renamed) asStored(err error) error {
	var all nn.TensorErrors
	if errors.As(err, &all) {
		for _, e := range all {
			e.Tensor = r.name(e.Tensor)
		}
	}
	return err
}
