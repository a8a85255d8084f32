// Package stageengine is a stage of any kind over the engine, for models of any family: what a runtime process serves. It
// has the library of models, the shelf of their components, and the sessions in which families work with them.
//
// The package may import stage, families/family and the engine; it is given the families.
package stageengine

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/stage"
)

// maxModels bounds a library: a folder given by mistake may hold a million others.
const maxModels = 10000

// Library knows the model directories by name. Safe for concurrent use.
type Library struct {
	dirs       []string // see OpenLibrary; none are looked at again if it is empty
	embeddings embeddings
	vaes       map[string]string // files by model, see ReplaceVAE

	mu    sync.RWMutex
	paths map[string]string
}

// OpenLibrary collects models. Each of dirs is a model itself, a directory or a file, or a folder with models; a model's name is its
// folder's, or its repository's in the hub's cache, or its file's without the extension. Of files of one name in a folder safetensors is taken. A dir without any model
// and two models of one name are errors. Nothing but the presence of files is looked at.
func OpenLibrary(dirs ...string) (*Library, error) {
	l := &Library{paths: map[string]string{}}
	for _, dir := range dirs {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		l.dirs = append(l.dirs, abs)
		found, err := modelsOf(abs)
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("models: %w", notReadable(err))
		}
		if err != nil {
			return nil, fmt.Errorf("models: %w", err)
		}
		for _, path := range found {
			if err := l.add(path); err != nil {
				return nil, err
			}
		}
		if err := unreadable(abs); len(found) == 0 && err != nil {
			return nil, fmt.Errorf("models: %w", err)
		}
		if _, err := modeldir.Snapshot(abs); len(found) == 0 && err != nil {
			return nil, fmt.Errorf("models: %w", err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("models: %s is not a model and has none: expected a %s in it or in a folder below it, or a file of weights", dir, modeldir.IndexFile)
		}
	}
	return l, nil
}

// NameOf is the name of the model at a path.
func NameOf(path string) string { return modeldir.NameOf(path) }

// Names lists the models, sorted.
func (l *Library) Names() []string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Sorted(maps.Keys(l.paths))
}

// look brings the models up to date with the folders, and gives their paths by name. A folder that cannot be read has the models
// it had; of two models of one name, and beyond the bound, the first found stay.
func (l *Library) look() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.dirs) == 0 {
		return maps.Clone(l.paths)
	}
	now := &Library{paths: map[string]string{}}
	for name, path := range l.paths {
		if modeldir.IsModel(path) || modeldir.IsFile(path) || !readable(filepath.Dir(path)) {
			now.paths[name] = path
		}
	}
	for _, dir := range l.dirs {
		found, _ := modelsOf(dir)
		for _, path := range found {
			_ = now.add(path) // told at the start
		}
	}
	l.paths = now.paths
	return maps.Clone(l.paths)
}

// readable reports whether a folder can be listed.
func readable(dir string) bool {
	_, err := os.ReadDir(dir)
	return err == nil
}

// Path gives the folder of a model or ModelNotFound.
func (l *Library) Path(model string) (string, error) {
	l.mu.RLock()
	path, ok := l.paths[model]
	l.mu.RUnlock()
	if !ok {
		return "", stage.NoSuchModel(model, l.Names())
	}
	return path, nil
}

// ReplaceVAE has models take the autoencoders of files in the place of their own, by name; that of no name is for all others. Called before
// the library is used. A model that is not there and a file that is none are errors.
func (l *Library) ReplaceVAE(files map[string]string) error {
	l.vaes = map[string]string{}
	for _, model := range slices.Sorted(maps.Keys(files)) {
		if _, known := l.paths[model]; model != "" && !known {
			return fmt.Errorf("vae: there is no model %q, expected one of %s", model, strings.Join(l.Names(), ", "))
		}
		file, err := filepath.Abs(files[model])
		if err == nil && !modeldir.IsFile(file) {
			err = fmt.Errorf("vae: %s is no file, expected weights of an autoencoder", files[model])
		}
		if err != nil {
			return err
		}
		l.vaes[model] = file
	}
	return nil
}

// VAE is the file of the autoencoder that takes the place of a model's own, empty without.
func (l *Library) VAE(model string) string { return cmp.Or(l.vaes[model], l.vaes[""]) }

// Only is the library with some of its models alone.
func (l *Library) Only(models ...string) *Library {
	out := &Library{paths: map[string]string{}, vaes: l.vaes}
	for _, m := range models {
		out.paths[m], _ = l.Path(m)
	}
	return out
}

func (l *Library) add(path string) error {
	name := modeldir.NameOf(path)
	if other, ok := l.paths[name]; ok && other != path {
		return fmt.Errorf("models: %s and %s have the same name", other, path)
	}
	if len(l.paths) == maxModels {
		return fmt.Errorf("models: more than %d models", maxModels)
	}
	l.paths[name] = path
	return nil
}

// modelsOf are the paths of a folder that is a model, or of those below it that are.
func modelsOf(dir string) (paths []string, err error) {
	if modeldir.IsModel(dir) || modeldir.IsFile(dir) && modeldir.IsWeights(dir) {
		return []string{dir}, nil
	}
	entries, err := os.ReadDir(dir)
	names := map[string]bool{}
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); !e.Type().IsRegular() && modeldir.IsModel(path) {
			paths, names[modeldir.NameOf(path)] = append(paths, path), true
		}
	}
	for _, ext := range []string{".safetensors", ""} { // of files that have one name
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			name := modeldir.NameOfFile(path)
			if !e.IsDir() && strings.HasSuffix(path, ext) && modeldir.IsWeights(path) && !names[name] && (e.Type().IsRegular() || modeldir.IsFile(path)) {
				paths, names[name] = append(paths, path), true
			}
		}
	}
	return paths, err
}

// unreadable is why a folder has no model that can be read, where that is a lack of permission: nil if it is not.
func unreadable(dir string) error {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), modeldir.IndexFile)); errors.Is(err, fs.ErrPermission) {
			return notReadable(err)
		}
	}
	return nil
}

// notReadable says who lacks the permission.
func notReadable(err error) error {
	return fmt.Errorf("%w; expected files that user %d can read", err, os.Geteuid())
}
