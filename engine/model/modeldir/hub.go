package modeldir

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The hub's cache has a folder for each repository, models--ORG--NAME, with refs/main, which has the name of a folder in snapshots, whose
// files are links into blobs.

// maxRef bounds refs/main; a commit has 40 characters.
const maxRef = 256

// hubName is NAME of a folder models--ORG--NAME or models--NAME, empty of others.
func hubName(folder string) string {
	repository, ok := strings.CutPrefix(folder, "models--")
	if !ok {
		return ""
	}
	if _, name, ok := strings.Cut(repository, "--"); ok {
		return name
	}
	return repository
}

// isHub reports whether a folder is that of a repository in the hub's cache.
func isHub(path string) bool {
	if hubName(filepath.Base(path)) == "" {
		return false
	}
	info, err := os.Stat(filepath.Join(path, "snapshots"))
	return err == nil && info.IsDir()
}

// Snapshot is where the files of a model are: of a repository in the hub's cache the snapshot that its refs/main names, else the
// path itself. The error is an Error.
func Snapshot(path string) (string, error) {
	if !isHub(path) {
		return path, nil
	}
	ref := filepath.Join(path, "refs", "main")
	fail := func(got string, err error) (string, error) {
		return "", &Error{Path: ref, Expected: "a file with the name of a folder in snapshots", Got: got, Err: err}
	}
	f, err := os.Open(ref)
	if err != nil {
		return fail(reason(err), err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRef+1))
	if err != nil {
		return fail(reason(err), err)
	}
	name := strings.TrimSpace(string(data))
	if len(data) > maxRef || name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") {
		return fail("something else", nil)
	}
	snapshot := filepath.Join(path, "snapshots", name)
	if info, err := os.Stat(snapshot); err != nil || !info.IsDir() {
		return fail("one that is not there", err)
	}
	return snapshot, nil
}

// hubModel is the name of a model that is a repository in the hub's cache, or one of its snapshots; empty of others.
func hubModel(path string) string {
	if isHub(path) {
		return hubName(filepath.Base(path))
	}
	if snapshots := filepath.Dir(path); filepath.Base(snapshots) == "snapshots" {
		return hubName(filepath.Base(filepath.Dir(snapshots)))
	}
	return ""
}

// contained refuses a snapshot in the hub's cache with a link that leads out of its repository, as one that was unpacked from an archive may have.
// The error is an Error.
func contained(snapshot string) error {
	repository := filepath.Dir(filepath.Dir(snapshot))
	if filepath.Base(filepath.Dir(snapshot)) != "snapshots" || hubName(filepath.Base(repository)) == "" {
		return nil
	}
	root, err := filepath.EvalSymlinks(repository)
	if err != nil {
		return &Error{Path: snapshot, Expected: "a folder", Got: reason(err), Err: err}
	}
	inside := func(path string) error {
		to, err := filepath.EvalSymlinks(path)
		if rel, _ := filepath.Rel(root, to); err == nil && !filepath.IsLocal(rel) {
			return &Error{Path: path, Expected: "a file of its repository in the hub's cache, such as one in blobs", Got: "a link that leads out of it"}
		}
		return nil // where a link leads to nothing, who reads it tells
	}
	var look func(dir string, networks bool) error
	look = func(dir string, networks bool) error {
		entries, _ := os.ReadDir(dir) // who reads what cannot be listed tells
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if e.Type()&fs.ModeSymlink != 0 {
				if err := inside(path); err != nil {
					return err
				}
			}
			if info, err := os.Stat(path); networks && err == nil && info.IsDir() {
				if err := look(path, false); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := inside(snapshot); err != nil {
		return err
	}
	return look(snapshot, true)
}
