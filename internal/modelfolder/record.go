package modelfolder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// recordName is the file of a model's folder that tells what was put there.
const recordName = stateName + ".json"

// Record is what is known of a model's files.
type Record struct {
	Files []File `json:"files"` // sorted by path
}

// File is a file as it was when its bytes were checked.
type File struct {
	Path     string `json:"path"`
	Size     int64  `json:"size_bytes"`
	Modified int64  `json:"modified_ns"`                  // here
	Source   int64  `json:"source_modified_ns,omitempty"` // where it was copied from; 0 if it was not
	SHA256   string `json:"sha256"`
}

// ReadRecord reads the record of the model at a path; it is empty if there is none that can be read.
func ReadRecord(path string) (r Record) {
	data, err := os.ReadFile(filepath.Join(path, recordName))
	if err != nil || json.Unmarshal(data, &r) != nil {
		return Record{}
	}
	return r
}

// write replaces the record of the model at a path. It is on the disk when it is done.
func (r Record) write(path string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	name := filepath.Join(path, recordName)
	file, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // other users' services may read models
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// Of is the entry of a file; ok is false if there is none.
func (r Record) Of(path string) (f File, ok bool) {
	i, ok := slices.BinarySearchFunc(r.Files, path, func(f File, path string) int { return strings.Compare(f.Path, path) })
	if !ok {
		return File{}, false
	}
	return r.Files[i], true
}

// with is the record with a file, in the place of one that has its path.
func (r Record) with(f File) Record {
	files := slices.DeleteFunc(slices.Clone(r.Files), func(old File) bool { return old.Path == f.Path })
	files = append(files, f)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return Record{files}
}

// Bytes is the sum of the files' sizes.
func (r Record) Bytes() (n int64) {
	for _, f := range r.Files {
		n += f.Size
	}
	return n
}

// Digest is the SHA-256 of what sha256sum prints for the files, sorted by path: "sha256:" and 64 digits.
func (r Record) Digest() string {
	h := sha256.New()
	for _, f := range r.Files {
		fmt.Fprintf(h, "%s  %s\n", f.SHA256, f.Path)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// Intact tells whether the file of an entry below a folder is as it was, by size and time.
func (f File) Intact(dir string) bool {
	info, err := os.Lstat(filepath.Join(dir, f.Path))
	return err == nil && info.Mode().IsRegular() && info.Size() == f.Size && info.ModTime().UnixNano() == f.Modified
}

// Intact tells whether all files below a model's path are as they were, by size and time. A record without files is of nothing.
func (r Record) Intact(path string) bool {
	return len(r.Files) > 0 && !slices.ContainsFunc(r.Files, func(f File) bool { return !f.Intact(path) })
}

// damaged reads all files below a model's path and lists those whose bytes are not what was put there.
func (r Record) damaged(ctx context.Context, path string, read func(bytes int64)) (paths []string, err error) {
	for _, f := range r.Files {
		got, err := sum(ctx, filepath.Join(path, f.Path), read)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil || got != f.SHA256 {
			paths = append(paths, f.Path)
		}
	}
	return paths, nil
}

// sum is the SHA-256 of a file, in hexadecimal. read is told of bytes as they come.
func sum(ctx context.Context, name string, read func(bytes int64)) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	h := sha256.New()
	if err := Copy(ctx, h, file, read); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Copy copies until the end of from or of ctx. done is told of bytes as they are written.
func Copy(ctx context.Context, to io.Writer, from io.Reader, done func(bytes int64)) error {
	buffer := make([]byte, 1<<20)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return Full(err)
			}
			done(int64(n))
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}
