package modeldir

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/model/kind"
	"github.com/triptych-serving/triptych/engine/model/original"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/weights"
)

// An autoencoder is in a checkpoint, or in a file of its own, which takes the place of a model's: under the names of the original
// repository or of diffusers, with a prefix or without.

// vaeNames are those of an autoencoder in a file.
type vaeNames struct {
	prefix    string // before all of them
	diffusers bool   // those behind it are diffusers' own
}

// findVAE tells where a file has an autoencoder, if it has one.
func findVAE(set *weights.Set) (n vaeNames, ok bool) {
	root := kind.Wrapped(set.Names())
	for _, prefix := range []string{original.VAEPrefix, "vae.", ""} {
		for i, own := range []string{"decoder.mid.block_1.conv1.weight", "decoder.mid_block.resnets.0.conv1.weight"} {
			if _, _, there := set.Info(root + prefix + own); there {
				return vaeNames{root + prefix, i == 1}, true
			}
		}
	}
	return n, false
}

// vaePart is the autoencoder of a file; settle makes its config of what shapes tell. The error is an Error, wraps config.Errors, or is of the
// weights.
func vaePart(file string, set *weights.Set, settle func(told map[string]any) ([]byte, error)) (part, error) {
	names, ok := findVAE(set)
	if !ok {
		return part{}, &Error{Path: file, Expected: "an autoencoder (" + ClassVAE + ")", Got: whatIs(file)}
	}
	shapes := shapesOf(set, names.prefix)
	told := original.VAEConfig(shapes)
	if names.diffusers {
		told = original.DiffusersVAEConfig(shapes)
	}
	if channels, _ := told["block_out_channels"].([]int); len(channels) == 0 {
		return part{}, &Error{Path: file, Expected: names.prefix + "encoder.* beside the decoder", Got: "half of an autoencoder"}
	}
	data, err := settle(told)
	if err != nil {
		return part{}, err
	}
	parsed, err := vae.ParseConfig(data)
	if err != nil {
		return part{}, config.InFile(err, file)
	}
	if names.diffusers {
		return part{config: data, file: file, stored: behind(set, names.prefix)}, nil
	}
	params := original.VAE(parsed)
	return part{config: data, file: file, params: params}, locate(file, names.prefix, set, params)
}

// behind are the names of tensors behind a prefix, and the stored ones.
func behind(set *weights.Set, prefix string) map[string]string {
	stored := map[string]string{}
	for _, name := range set.Names() {
		if own, ok := strings.CutPrefix(name, prefix); ok {
			stored[own] = name
		}
	}
	return stored
}

// whatIs says what a file is that is not what was expected.
func whatIs(file string) string {
	d, err := identifyFile(file, "")
	var of *Error
	switch {
	case err == nil:
		return "a file of class " + d.class
	case errors.As(err, &of):
		return of.Got
	}
	return "a file that cannot be read"
}

// replaceVAE has a model that is a directory take the autoencoder of a file, with the numbers of its own config that shapes do not tell.
func (d *Dir) replaceVAE(file string) error {
	set, err := weights.OpenFile(file)
	if err != nil {
		return err
	}
	defer func() { _ = set.Close() }() // read-only
	p, err := vaePart(file, set, func(told map[string]any) ([]byte, error) {
		data, err := d.Read(VAEFolder, configFile)
		if err != nil {
			return nil, err
		}
		all := map[string]any{}
		if err := json.Unmarshal(data, &all); err != nil {
			own := d.File(VAEFolder, configFile)
			return nil, &Error{Path: own, Expected: "a JSON object", Got: err.Error(), Err: err}
		}
		maps.Copy(all, told)
		return json.Marshal(all)
	})
	if err != nil {
		return err
	}
	d.parts = map[string]part{VAEFolder: p}
	return nil
}

// openVAE opens a file that is an autoencoder, of class ClassVAE. It is no model, and replaces that of one.
func openVAE(path string, set *weights.Set) (*Dir, error) {
	if _, err := vaePart(path, set, func(told map[string]any) ([]byte, error) {
		all := maps.Clone(told)
		all["norm_num_groups"] = 1 // which the file does not tell, and nothing here asks for
		return json.Marshal(all)
	}); err != nil {
		return nil, err
	}
	return &Dir{path: path, file: true, class: ClassVAE}, nil
}
