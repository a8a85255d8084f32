package weights

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
func OpenHeaders(dir string, stems ...string) (Headers, error) {
	for _, name := range candidates(stems) {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		s := &Set{home: path, owners: map[string]*file{}, allowBare: true}
		if !strings.HasSuffix(name, ".json") {
			return s.headers(s.add(path))
		}
		shards, total, err := readIndex(path)
		if err != nil {
			return Headers{}, err
		}
		for _, shard := range shards {
			if _, err := os.Stat(filepath.Join(dir, shard)); errors.Is(err, fs.ErrNotExist) {
				return Headers{Names: slices.Sorted(maps.Keys(shards)), Bytes: total, Path: path}, nil
			}
		}
		return s.headers(s.addShards(dir, shards))
	}
	return Headers{Path: dir}, nil
}

// headers closes the files, behind err if there was one.
func (s *Set) headers(err error) (Headers, error) {
	if err := errors.Join(err, s.Close()); err != nil {
		return Headers{}, err
	}
	complete := !slices.ContainsFunc(s.files, func(f *file) bool { return f.bare })
	return Headers{Set: s, Complete: complete, Path: s.home}, nil
}
