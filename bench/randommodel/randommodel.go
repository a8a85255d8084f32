// Package randommodel writes a model of the true size of Stable Diffusion 1.5 with random weights, in the layout of
// diffusers: what both sides of a benchmark load when the trained weights, which are under a licence of their own, are
// not there. The same weights come out every time.
//
// The package may import bench/configs and the engine's device, kernel and tensor packages.
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

	"github.com/triptych-serving/triptych/bench/configs"
	"github.com/triptych-serving/triptych/engine/device"
)

// Options say what is written where.
type Options struct {
	Dir string
	// Only is one component to write the weights of, all if it is empty. A model with a component missing cannot be
	// opened as a whole.
	Only string
	// Tokenizer is a folder whose files become the model's tokenizer. Its ids must be below 49408.
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

// Write writes some 2.1 GB. Files that are there are replaced.
func Write(o Options) error {
	components := configs.Components()
	if o.Only != "" {
		if !slices.Contains(components, o.Only) {
			return fmt.Errorf("component %q: expected one of %v", o.Only, components)
		}
		components = []string{o.Only}
	}
	if err := os.Remove(filepath.Join(o.Dir, index)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files := configs.SD15()
	for name, value := range files {
		if name == index {
			continue
		}
		if err := writeJSON(filepath.Join(o.Dir, filepath.FromSlash(name)), value); err != nil {
			return err
		}
	}
	if err := os.CopyFS(filepath.Join(o.Dir, "tokenizer"), os.DirFS(o.Tokenizer)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, c := range components {
		if err := writeComponent(o, c); err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	if o.Only != "" && !others(o.Dir) {
		return nil
	}
	return writeJSON(filepath.Join(o.Dir, index), files[index])
}

// others reports whether every component has its weights, so that the model is whole.
func others(dir string) bool {
	for _, c := range configs.Components() {
		if _, err := os.Stat(weightFile(dir, c)); err != nil {
			return false
		}
	}
	return true
}

// weightFile is where diffusers and transformers look for a component's weights.
func weightFile(dir, component string) string {
	name := "diffusion_pytorch_model.safetensors"
	if component == "text_encoder" {
		name = "model.safetensors"
	}
	return filepath.Join(dir, component, name)
}

// writeComponent writes the weights of a component under another name first, so that a file with the right name is whole.
func writeComponent(o Options, component string) error {
	m, err := configs.Manifest(component)
	if err != nil {
		return err
	}
	final := weightFile(o.Dir, component)
	f, err := os.Create(final + ".part")
	if err != nil {
		return err
	}
	err = writeWeights(f, component, m, func(done, all int64) {
		if o.Progress != nil {
			o.Progress(component, done, all)
		}
	})
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), final)
}

// storedShape is the shape in the file: what the engine uses as a matrix is there a convolution of 1x1 in some places.
func storedShape(p device.Param) []int {
	if parent := path.Base(path.Dir(slashes(p.Name))); p.Layout == device.Matrix && slices.Contains(pointwise(), parent) {
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
