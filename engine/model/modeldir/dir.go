// Package modeldir opens model directories in the layout of diffusers: one with model_index.json and a folder for each
// network. It reads configs, and declares the networks of the engine over weight files, or over their headers or
// configs alone where a plan is all that is wanted, before anything is loaded.
//
// The package may import the engine's config, device, nn, weights, tokenizer and model packages.
package modeldir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/model/controlnet"
)

// IndexFile marks a folder as a model in the layout of diffusers.
const IndexFile = "model_index.json"

const configFile = "config.json"

// Error is a directory that is not a model this engine can run.
type Error struct {
	Path     string // the file or folder at fault
	Expected string
	Got      string
	Err      error // the cause, if it has one
}

// Error reads "PATH: expected a folder, got nothing".
func (e *Error) Error() string {
	return fmt.Sprintf("%s: expected %s, got %s", e.Path, e.Expected, e.Got)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Dir is a model directory. It holds no file open.
type Dir struct {
	path, class string
	index       []byte
	file        bool              // path is one
	names       map[string]string // of its tensors, by the network's; nil where those are the same
	parts       map[string]part   // of a checkpoint, by folder
	surplus     []string          // warnings of what a checkpoint has beside its parts
}

// loneClasses are the classes of networks that are models by themselves: ControlNets, and what people take for them, which is refused by
// its class.
func loneClasses() []string {
	return []string{controlnet.Class, "ControlNetUnionModel", "ControlNetXSAdapter", "T2IAdapter", "FluxControlNetModel", "SD3ControlNetModel"}
}

// IsModel reports whether a folder is a model: one with an index, or the network of one that is an adapter by itself, see Snapshot.
func IsModel(path string) bool {
	path, err := Snapshot(path)
	if err != nil {
		return false
	}
	info, err := os.Stat(filepath.Join(path, IndexFile))
	if err == nil {
		return info.Mode().IsRegular()
	}
	data, err := readConfig(filepath.Join(path, configFile))
	var of struct {
		Class string `json:"_class_name"`
	}
	return err == nil && json.Unmarshal(data, &of) == nil && slices.Contains(loneClasses(), of.Class) || isLoRA(path)
}

// Open reads model_index.json of a model whose pipeline is of one of the accepted classes, or where there is none the
// config.json of a network that is. Of a repository in the hub's cache it is that of its Snapshot. A file is a model or an adapter by itself.
// Errors are an Error or wrap config.Errors, or are those of weights, and name the file.
func Open(path string, accepted ...string) (*Dir, error) { return OpenWith(path, "", accepted...) }

// OpenWith is Open with the file of an autoencoder that takes the place of the model's own; empty is none. Models without one have
// no use for it.
func OpenWith(path, vae string, accepted ...string) (*Dir, error) {
	if IsFile(path) {
		return openFile(path, vae, accepted)
	}
	d, err := openDir(path, accepted)
	if err == nil && vae != "" && d.Part(VAEFolder) == ClassVAE {
		err = d.replaceVAE(vae)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// openDir is Open of a folder.
func openDir(path string, accepted []string) (*Dir, error) {
	path, err := Snapshot(path)
	if err == nil {
		err = contained(path)
	}
	if err != nil {
		return nil, err
	}
	file := filepath.Join(path, IndexFile)
	data, err := readConfig(file)
	if errors.Is(err, fs.ErrNotExist) && isLoRA(path) {
		if d := (&Dir{path: path, class: ClassLoRA}); slices.Contains(accepted, d.class) {
			return d, nil
		}
		return nil, &Error{Path: path, Expected: strings.Join(accepted, " or "), Got: ClassLoRA}
	}
	if errors.Is(err, fs.ErrNotExist) {
		if own, lone := readConfig(filepath.Join(path, configFile)); lone == nil {
			file, data, err = filepath.Join(path, configFile), own, nil
		}
	}
	if err != nil {
		return nil, err
	}
	r, err := config.ParseDiffusers(data)
	if err != nil {
		return nil, config.InFile(err, file)
	}
	const class = "_class_name"
	if !r.Has(class) {
		r.Refuse(class, `"`+strings.Join(accepted, `" or "`)+`"`)
	}
	d := &Dir{path: path, class: r.String(class, accepted...), index: data}
	return d, config.InFile(r.Err(), file)
}

// At is a folder of networks that is no model by itself: what an adapter has beside its file.
func At(path string) *Dir { return &Dir{path: path} }

// Path is where the model is, Name what its folder is called.
func (d *Dir) Path() string { return d.path }

// Name is the model's: that of its folder, or its file without the extension.
func (d *Dir) Name() string { return NameOf(d.path) }

// Class is that of the pipeline.
func (d *Dir) Class() string { return d.class }

// Part is the class of a part of the pipeline by its key, which is its folder too; empty if the index has none.
func (d *Dir) Part(key string) string {
	var of map[string]json.RawMessage
	var pair []string // a library and a class
	if json.Unmarshal(d.index, &of) != nil || json.Unmarshal(of[key], &pair) != nil || len(pair) != 2 {
		return ""
	}
	return pair[1]
}

// Check refuses an index whose parts are not of the known classes, by key; of nil ones any class will do, and none. warnings tell
// of keys that the pipeline does not know.
func (d *Dir) Check(parts map[string][]string) (warnings []string, err error) {
	r, err := config.ParseDiffusers(d.index)
	if err != nil {
		return nil, err
	}
	r.Has("_class_name")
	var keys []string
	for key := range parts {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		r.Raw(key)
		if known := parts[key]; known != nil && !slices.Contains(known, d.Part(key)) {
			r.Refuse(key, "a library and "+strings.Join(known, " or "))
		}
	}
	class := strings.NewReplacer("Img2Img", "", "Inpaint", "").Replace(d.class) // which know the same keys
	return IgnoredKeys(IndexFile, r.Unknown(class)), config.InFile(r.Err(), d.File(IndexFile))
}

// Flag is a setting of the pipeline, yes or no; def where the index does not say. The error names it.
func (d *Dir) Flag(key string, def bool) (bool, error) {
	r, err := config.ParseDiffusers(d.index)
	if err != nil {
		return false, err
	}
	value := r.Bool(key, def)
	return value, config.InFile(r.Err(), d.File(IndexFile))
}

// Refuse is an error about a key of the index.
func (d *Dir) Refuse(key, accepted string) error {
	r, err := config.ParseDiffusers(d.index)
	if err != nil {
		return err
	}
	r.Refuse(key, accepted)
	return config.InFile(r.Err(), d.File(IndexFile))
}

// File is a path in the model. Of a checkpoint folders may be elsewhere.
func (d *Dir) File(names ...string) string {
	if len(names) > 0 && d.parts[names[0]].folder != "" {
		return filepath.Join(append([]string{d.parts[names[0]].folder}, names[1:]...)...)
	}
	return filepath.Join(append([]string{d.path}, names...)...)
}

// Read reads a config file of at most config.MaxBytes. A model that is a file has them in a folder of its name.
func (d *Dir) Read(folder, file string) ([]byte, error) {
	if made := d.parts[folder]; made.config != nil {
		return made.config, nil
	} else if made.folder != "" {
		return readConfig(filepath.Join(made.folder, file))
	}
	if d.file {
		return readConfig(filepath.Join(filepath.Dir(d.path), d.Name(), folder, file))
	}
	return readConfig(d.File(folder, file))
}

// Fit is a number of a network's config that another network's decides.
type Fit struct {
	Key       string
	Got, Want int
	Why       string
}

// Fits refuses a config whose numbers are not those of other networks. The error is an Error that names its file.
func (d *Dir) Fits(folder string, all ...Fit) error {
	for _, f := range all {
		if f.Got != f.Want {
			return &Error{Path: d.File(folder, configFile), Expected: fmt.Sprintf("%s %d, %s", f.Key, f.Want, f.Why), Got: fmt.Sprint(f.Got)}
		}
	}
	return nil
}

// Config reads config.json in the folder of a network. Errors are an Error or wrap config.Errors, and name the file.
func Config[C any](d *Dir, folder string, parse func([]byte) (C, error)) (C, error) {
	data, err := d.Read(folder, configFile)
	if err != nil {
		return *new(C), err
	}
	c, err := parse(data)
	if err != nil {
		return *new(C), config.InFile(err, d.File(folder, configFile))
	}
	return c, nil
}

// readConfig reads a regular file of at most config.MaxBytes.
func readConfig(path string) ([]byte, error) {
	fail := func(err error, got string) ([]byte, error) {
		return nil, &Error{Path: path, Expected: fmt.Sprintf("a JSON file of at most %d bytes", config.MaxBytes), Got: got, Err: err}
	}
	info, err := os.Stat(path)
	if err != nil {
		return fail(err, reason(err))
	}
	if !info.Mode().IsRegular() {
		return fail(nil, info.Mode().Type().String())
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err, reason(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, config.MaxBytes+1))
	if err != nil {
		return fail(err, reason(err))
	}
	if len(data) > config.MaxBytes {
		return fail(nil, fmt.Sprintf("%d bytes", info.Size()))
	}
	return data, nil
}

// reason is the cause without the path, which the Error already has.
func reason(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "nothing"
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}
