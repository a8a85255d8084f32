package weights

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// Headers is what the files in a folder tell of a network's tensors, whether their data is there or not. There
// are files with all data, files that end behind their headers, an index without its files, or nothing.
type Headers struct {
	Set      *Set     // shapes and types, closed; nil if no file tells them
	Complete bool     // all data is there too
	Names    []string // sorted, what an index lists whose files are missing
	Bytes    int64    // of those, as the index says; 0 if it does not
	Path     string   // of the file or index, the folder if there is none
}

// OpenHeaders looks for files by the names that OpenDir knows. That there are none is no error; a damaged one is an
// Error.
func OpenHeaders(dir string, naming Naming) (Headers, error) {
	f, _, err := naming.find(dir)
	switch {
	case err != nil:
		return Headers{}, err
	case f.path == "":
		return Headers{Path: dir}, nil
	}
	s := &Set{home: f.path, variant: f.variant, owners: map[string]*file{}, allowBare: true}
	if !f.isIndex() {
		return s.headers(s.add(f.path))
	}
	shards, total, err := readIndex(f.path)
	if err != nil {
		return Headers{}, err
	}
	for _, shard := range shards {
		if _, err := os.Stat(filepath.Join(dir, shard)); errors.Is(err, fs.ErrNotExist) {
			return Headers{Names: slices.Sorted(maps.Keys(shards)), Bytes: total, Path: f.path}, nil
		}
	}
	return s.headers(s.addShards(dir, shards))
}

// OpenOutline is OpenFile of a file that may end behind its header: see Complete.
func OpenOutline(path string) (*Set, error) {
	s := &Set{home: path, owners: map[string]*file{}, allowBare: true}
	if err := s.add(path); err != nil {
		return nil, err
	}
	return s, nil
}

// Complete reports whether all data is there, and no file ends behind its header.
func (s *Set) Complete() bool {
	return !slices.ContainsFunc(s.files, func(f *file) bool { return f.bare })
}

// headers closes the files, behind err if there was one.
func (s *Set) headers(err error) (Headers, error) {
	if err := errors.Join(err, s.Close()); err != nil {
		return Headers{}, err
	}
	return Headers{Set: s, Complete: s.Complete(), Path: s.home}, nil
}
