// Package randommodel writes models of true sizes with random weights, in the layout of diffusers: what both sides of a
// benchmark load when the trained weights, which are under a licence of their own, are not there. The same weights come
// out every time.
//
// The package may import bench/configs and the engine's device, kernel, nn and model packages.
package randommodel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/bench/configs"
	"github.com/triptych-serving/triptych/engine/device"
)

// Options say what is written where.
type Options struct {
	Dir   string
	Files configs.Files // of the model
	// Only is one component to write the weights of, all if it is empty. A model with a component missing cannot be
	// opened as a whole.
	Only string
	// Tokenizer is a folder whose files become the model's tokenizers. Its ids must be below 49408.
	Tokenizer string
	Progress  func(component string, doneBytes, bytes int64)
}

// index is the file that is written last, when a model is whole.
const index = "model_index.json"

// Complete reports whether a whole model was written to dir.
func Complete(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, index))
	return err == nil
}

// Write writes a model: 2.1 GB of the size of Stable Diffusion 1.5, 6.9 GB of XL's. Files that are there are replaced.
func Write(o Options) error {
	components := o.Files.Components()
	if o.Only != "" {
		if !slices.Contains(components, o.Only) {
			return fmt.Errorf("component %q: expected one of %v", o.Only, components)
		}
		components = []string{o.Only}
	}
	if err := os.Remove(filepath.Join(o.Dir, index)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for name, value := range o.Files {
		if name == index {
			continue
		}
		if err := writeJSON(filepath.Join(o.Dir, filepath.FromSlash(name)), value); err != nil {
			return err
		}
	}
	for _, name := range o.Files.Tokenizers() {
		if err := os.CopyFS(filepath.Join(o.Dir, name), os.DirFS(o.Tokenizer)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, c := range components {
		if err := writeComponent(o, c); err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	if o.Only != "" && !others(o) {
		return nil
	}
	return writeJSON(filepath.Join(o.Dir, index), o.Files[index])
}

// others reports whether every component has its weights, so that the model is whole.
func others(o Options) bool {
	for _, c := range o.Files.Components() {
		if _, err := os.Stat(weightFile(o.Dir, c)); err != nil {
			return false
		}
	}
	return true
}

// weightFile is where diffusers and transformers look for a component's weights.
func weightFile(dir, component string) string {
	name := "diffusion_pytorch_model.safetensors"
	if strings.HasPrefix(component, "text_encoder") {
		name = "model.safetensors"
	}
	return filepath.Join(dir, component, name)
}

func writeComponent(o Options, component string) error {
	m, err := o.Files.Manifest(component)
	if err != nil {
		return err
	}
	return writeFile(weightFile(o.Dir, component), component, parameters(m, o.Files.Linear(component)), func(done, all int64) {
		if o.Progress != nil {
			o.Progress(component, done, all)
		}
	})
}

// writeFile writes tensors under another name first, so that a file with the right name is whole.
func writeFile(name, seed string, list []random, progress func(done, all int64)) error {
	f, err := os.Create(name + ".part")
	if err != nil {
		return err
	}
	err = writeWeights(f, seed, list, progress)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), name)
}

// storedShape is the shape in the file: what the engine uses as a matrix is there a convolution of 1x1 in some places.
func storedShape(p device.Param, linear bool) []int {
	parent := path.Base(path.Dir(slashes(p.Name)))
	if p.Layout == device.Matrix && slices.Contains(pointwise(), parent) && (!linear || !strings.HasPrefix(parent, "proj_")) {
		return append(slices.Clone(p.Shape), 1, 1)
	}
	return p.Shape
}

// pointwise are the layers that diffusers stores as convolutions of 1x1, those of a transformer with
// use_linear_projection false among them.
func pointwise() []string {
	return []string{"proj_in", "proj_out", "conv_shortcut", "quant_conv", "post_quant_conv"}
}

func writeJSON(name string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		return err
	}
	return os.WriteFile(name, append(data, '\n'), 0o600)
}
