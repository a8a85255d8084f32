package modelcache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/triptych-serving/triptych/internal/modelfolder"
	"github.com/triptych-serving/triptych/stage"
)

const (
	indexFile = "model_index.json"
	maxFiles  = 10_000
)

// source is a model in the slow folder.
type source struct {
	dir    string
	files  []sourceFile // sorted by path
	record modelfolder.Record
}

// sourceFile is a file of it, behind links.
type sourceFile struct {
	path     string
	size     int64
	modified time.Time
	stamp    time.Time // tells contents apart where nobody knows a digest
	sha256   string    // what was put there, if a record tells it and the file is as it was
}

func (s source) bytes() (n int64) {
	for _, f := range s.files {
		n += f.size
	}
	return n
}

// is tells whether a record is of a copy of the model.
func (s source) is(r modelfolder.Record) bool {
	return len(s.files) == len(r.Files) && !slices.ContainsFunc(s.files, func(f sourceFile) bool {
		has, ok := r.Of(f.path)
		return !ok || !f.is(has)
	})
}

// is tells whether an entry is of a copy of the file: by digest, or by size and time.
func (f sourceFile) is(has modelfolder.File) bool {
	if f.sha256 != "" {
		return has.SHA256 == f.sha256
	}
	return has.Size == f.size && has.Source == f.stamp.UnixNano() && has.SHA256 != ""
}

// untold is the year before which a modification time tells nothing: tars that can be made again, such as images of models, have one
// time in all of them.
const untold = 1990

// file looks at a file of the model.
func (s source) file(path string) (sourceFile, error) {
	name := filepath.Join(s.dir, path)
	info, err := os.Stat(name)
	if err != nil {
		return sourceFile{}, err
	}
	if !info.Mode().IsRegular() || !modelfolder.ValidPath(path) {
		return sourceFile{}, fmt.Errorf("%q cannot be copied, expected a regular file at %s", path, modelfolder.PathRule)
	}
	f := sourceFile{path: path, size: info.Size(), modified: info.ModTime(), stamp: info.ModTime()}
	if f.stamp.Year() < untold {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil {
			return sourceFile{}, err
		}
		f.stamp = time.Unix(st.Ctim.Unix()) // when the file came to be where it is
	}
	if known, ok := s.record.Of(path); ok && known.Intact(s.dir) {
		f.sha256 = known.SHA256
	}
	return f, nil
}

// modelsOf are the models of a folder, by their names: itself, or those below it.
func modelsOf(dir string) (map[string]string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	models := map[string]string{}
	if isModel(dir) {
		models[filepath.Base(dir)] = dir
		return models, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); modelfolder.ValidName(e.Name()) && isModel(path) {
			models[e.Name()] = path
		}
	}
	if len(models) == 0 {
		return nil, stage.Errorf(stage.ModelNotFound, "%s is not a model and has none: expected a %s in it or in a folder below it", dir, indexFile)
	}
	return models, nil
}

func isModel(path string) bool {
	info, err := os.Stat(filepath.Join(path, indexFile))
	return err == nil && info.Mode().IsRegular()
}

func keys(models map[string]string) []string { return slices.Sorted(maps.Keys(models)) }

// scan lists the files of a model. Links to files are followed, as folders of shared blobs have them.
func scan(dir string) (source, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return source{}, err
	}
	s := source{dir: dir, record: modelfolder.ReadRecord(dir)}
	err = fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case modelfolder.IsState(path) && d.IsDir():
			return fs.SkipDir
		case d.IsDir() || modelfolder.IsState(path):
			return nil
		}
		f, err := s.file(path)
		if err != nil {
			return err
		}
		if s.files = append(s.files, f); len(s.files) > maxFiles {
			return fmt.Errorf("more than %d files", maxFiles)
		}
		return nil
	})
	slices.SortFunc(s.files, func(a, b sourceFile) int { return strings.Compare(a.path, b.path) })
	return s, err
}

// copy makes a file of the model one of a draft. done is told of bytes as they come.
func (s source) copy(ctx context.Context, draft *modelfolder.Draft, f sourceFile, done func(bytes int64)) error {
	in, err := os.Open(filepath.Join(s.dir, f.path))
	if err != nil {
		return err
	}
	defer in.Close()
	key := sha256.Sum256([]byte(f.path))
	partial := draft.Partial(hex.EncodeToString(key[:]))
	out, err := os.Create(partial)
	if err != nil {
		return modelfolder.Full(err)
	}
	h := sha256.New()
	err = modelfolder.Copy(ctx, io.MultiWriter(out, h), in, done)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if info.Size() != f.size || !info.ModTime().Equal(f.modified) {
		return fmt.Errorf("%s changed while it was copied", f.path)
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if f.sha256 != "" && f.sha256 != sum {
		return fmt.Errorf("%s is damaged: SHA-256 %s was read, and %s was put there", f.path, sum, f.sha256)
	}
	return draft.Add(partial, f.path, sum, f.stamp)
}
