package modeldir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/inversion"
	"github.com/triptych-serving/triptych/engine/model/lora"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/weights"
)

// ClassLoRA is that of a file or folder with a LoRA.
const ClassLoRA = "LoRA"

// LoRA is such a part, opened.
type LoRA struct {
	Network
	LoRAPart
	name   string
	number uint64 // of no other one
}

var loras atomic.Uint64

// loraFile is a file with a LoRA.
type loraFile struct {
	path   string
	whole  lora.Part // the part that all of it is for; empty where names tell
	config string    // peft's, empty where there is none
}

// loraFiles are those of a LoRA in a folder: one for each part as peft saves them, or one by peft or by diffusers.
func loraFiles(path string) (out []loraFile) {
	there := func(names ...string) string {
		for _, name := range names {
			if file := filepath.Join(path, name); IsFile(file) {
				return file
			}
		}
		return ""
	}
	saved := func(folder string, whole lora.Part) {
		config, file := there(filepath.Join(folder, "adapter_config.json")), there(filepath.Join(folder, "adapter_model.safetensors"), filepath.Join(folder, "adapter_model.bin"))
		if config != "" && file != "" {
			out = append(out, loraFile{file, whole, config})
		}
	}
	for _, part := range []lora.Part{lora.UNet, lora.TextEncoder, lora.TextEncoder2} {
		saved(string(part), part)
	}
	if saved("", ""); len(out) > 0 {
		return out
	}
	if file := there("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"); file != "" {
		return []loraFile{{path: file}}
	}
	return nil
}

// open reads what the file has, which may be its header alone for an outline. The error is an Error, or that of the weights; the
// caller closes the set.
func (f loraFile) open(outline bool) (*weights.Set, *lora.File, error) {
	set, err := openSet(f.path, outline)
	if err != nil {
		return nil, nil, err
	}
	alphas, err := lora.ParseMetadata(set.Metadata())
	if err == nil && f.config != "" {
		var data []byte
		if data, err = readConfig(f.config); err == nil {
			var c lora.Config
			c, err = lora.ParseConfig(data)
			part := f.whole
			if part == "" {
				part = lora.UNet
			}
			alphas = lora.Alphas{part: c}
		}
	}
	if err == nil {
		var out *lora.File
		if out, err = lora.Read(set, f.whole, alphas); err == nil {
			return set, out, nil
		}
	}
	_ = set.Close() // read-only, and the other error says more
	var wrong *lora.Error
	if errors.As(err, &wrong) {
		got := wrong.Got
		if wrong.Tensor != "" {
			got = fmt.Sprintf("%s (tensor %.100q)", got, wrong.Tensor)
		}
		err = &Error{Path: f.path, Expected: wrong.Expected, Got: got, Err: wrong}
	}
	return nil, nil, err
}

func (d *Dir) loraFiles() []loraFile {
	if d.file {
		return []loraFile{{path: d.path}}
	}
	return loraFiles(d.path)
}

// LoRAFolders are those with the files of a LoRA.
func (d *Dir) LoRAFolders() (folders []string) {
	for _, f := range d.loraFiles() {
		folder := strings.Trim(strings.TrimPrefix(filepath.Dir(f.path), d.path), string(filepath.Separator))
		folders = append(folders, folder)
	}
	if d.file {
		return []string{""}
	}
	return slices.Compact(folders)
}

// LoRAPart is what a LoRA has for one network of a model.
type LoRAPart struct {
	Part     lora.Part
	Settings string // all that its results depend on beside the weights
	layers   []*lora.Layer
	words    []*inversion.Inversion
}

// part is what a file has for a network; ok is false if it has nothing.
func (f loraFile) part(set *weights.Set, file *lora.File, part lora.Part) (p LoRAPart, ok bool) {
	p = LoRAPart{Part: part, layers: file.Parts[part]}
	words := file.Words && part == lora.TextEncoder
	if words && set.Complete() {
		p.words = inversion.Bundled(filepath.Base(f.path), set, lora.Bundled)
	}
	var b strings.Builder
	for _, layer := range p.layers {
		fmt.Fprintf(&b, "%s %g\n", layer.Key, layer.Factor)
	}
	for _, in := range p.words {
		fmt.Fprintf(&b, "%q %x\n", in.Words, in.Digest)
	}
	p.Settings = b.String()
	return p, words || len(p.layers) > 0
}

// LoRAParts is what a LoRA has for the networks of a model.
func (d *Dir) LoRAParts() (parts []LoRAPart, err error) {
	for _, f := range d.loraFiles() {
		set, file, err := f.open(true)
		if err != nil {
			return nil, err
		}
		for _, part := range []lora.Part{lora.TextEncoder, lora.TextEncoder2, lora.UNet} {
			there := slices.ContainsFunc(parts, func(p LoRAPart) bool { return p.Part == part })
			if p, ok := f.part(set, file, part); ok && !there {
				parts = append(parts, p)
			}
		}
		_ = set.Close() // read-only
	}
	return parts, nil
}

// LoRA opens one for a part. Its weights are kept as stored.
func (d *Dir) LoRA(part lora.Part, o Options) (*LoRA, error) {
	for _, f := range d.loraFiles() {
		set, file, err := f.open(o.Outline)
		if err != nil {
			return nil, err
		}
		p, ok := f.part(set, file, part)
		if !ok {
			_ = set.Close() // read-only
			continue
		}
		w := loraWeights{lora.NewWeights(set, p.layers), set}
		s := nn.NewScope(w)
		lora.Declare(s, p.layers)
		if _, err := s.Finish(func(string) bool { return true }); err != nil {
			_ = set.Close() // read-only
			return nil, err
		}
		l := &LoRA{LoRAPart: p, name: d.Name(), number: loras.Add(1)}
		l.manifest, l.tapes, l.weights, l.complete = s.Manifest(), &device.Tapes[tapeOf]{}, w, set.Complete()
		return l, nil
	}
	return nil, &Error{Path: d.path, Expected: "a LoRA for a " + string(part), Got: "one without"}
}

// Name is the model's.
func (l *LoRA) Name() string { return l.name }

// Embeddings are the textual inversions that it brings along for its text encoders.
func (l *LoRA) Embeddings() []*inversion.Inversion { return l.words }

// loraWeights are those of a LoRA.
type loraWeights struct {
	lora.Weights
	set *weights.Set
}

// Watch implements weightFile.
func (w loraWeights) Watch(p *weights.Prints) { w.set.Watch(p) }

// Close implements weightFile.
func (w loraWeights) Close() error { return w.set.Close() }

// Sums implements weightFile: of a difference that is made of tensors it is one of theirs.
func (w loraWeights) Sums(p *weights.Prints, names []string) (sums []uint32, known bool) {
	for _, name := range names {
		of, known := w.set.Sums(p, w.Of(name))
		if !known {
			return nil, false
		}
		sum := uint32(0)
		for _, s := range of {
			sum = sum*31 + s
		}
		sums = append(sums, sum)
	}
	return sums, true
}

// Adapted is a LoRA on a network that it fits.
type Adapted struct {
	*LoRA
	fit lora.Fit
}

// adapt fits a LoRA on a network. The error is a lora.Misfit.
func adapt(t *lora.Table, l *LoRA) (Adapted, error) {
	fit, err := t.Fit(l.manifest, l.layers)
	return Adapted{l, fit}, err
}

// inputScale names what the difference of a layer of the i-th LoRA is multiplied by.
func inputScale(i, layer int) string { return fmt.Sprintf("lora.%d.%d", i, layer) }

// Scale is an input of a tape with LoRAs, and what is written to it: [1].
type Scale struct {
	Input string
	Value []float32
}

// Scales are the inputs of a tape with LoRAs at weights, one for each.
func Scales(loras []Adapted, weights []float64) (out []Scale) {
	for i, l := range loras {
		for layer, v := range l.fit.Scales(weights[i]) {
			out = append(out, Scale{inputScale(i, layer), []float32{v}})
		}
	}
	return out
}

// Numbers tells LoRAs from all others that were ever opened.
func Numbers(loras []Adapted) string {
	var b strings.Builder
	for _, l := range loras {
		fmt.Fprintf(&b, "%d ", l.number)
	}
	return b.String()
}

// isLoRA reports whether a folder is one.
func isLoRA(path string) bool {
	info, err := os.Stat(path)
	return (err == nil || !errors.Is(err, fs.ErrNotExist)) && info != nil && info.IsDir() && len(loraFiles(path)) > 0
}
