package modelfolder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Draft is a model that is being made, out of sight of whoever serves the folder. What it has so far outlives the process.
type Draft struct {
	folder *Folder
	model  string
	dir    string
	record Record
	old    Record // of the model that is there already
}

// Draft begins a model, or goes on with it. The folder's lock is held.
func (f *Folder) Draft(model string) (*Draft, error) {
	d := &Draft{folder: f, model: model, dir: filepath.Join(f.state(), model+draftExt), old: ReadRecord(f.Path(model))}
	if len(d.old.Files) == 0 {
		if _, err := os.Lstat(f.Path(model)); err == nil {
			return nil, fmt.Errorf("%s is there and was not put there by triptych: move it away, or choose another folder", f.Path(model))
		}
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil { //nolint:gosec // other users' services may read models
		return nil, err
	}
	for _, file := range ReadRecord(d.dir).Files {
		if file.Intact(d.dir) {
			d.record = d.record.with(file)
		}
	}
	return d, nil
}

// Has tells whether the draft has the file that is meant, which it takes from the model that is there already if it can.
func (d *Draft) Has(path string, is func(File) bool) bool {
	if f, ok := d.record.Of(path); ok && is(f) {
		return true
	}
	f, ok := d.old.Of(path)
	return ok && is(f) && d.reuse(f)
}

// Partial is where a file is written until it is complete; key tells different contents apart.
func (d *Draft) Partial(key string) string { return filepath.Join(d.dir, stateName+"-"+key) }

// Add makes a complete file, at name, one of the draft's. It is on the disk when it is done. source is when that changed which
// it was copied from, or no time.
func (d *Draft) Add(name, path, sha256 string, source time.Time) error {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err = errors.Join(file.Sync(), file.Close()); err != nil {
		return Full(err)
	}
	to := filepath.Join(d.dir, path)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // other users' services may read models
		return err
	}
	if err := os.Rename(name, to); err != nil {
		return err
	}
	return d.note(path, sha256, source)
}

// reuse takes a file from the model that is there already, if it still is what its record says.
func (d *Draft) reuse(old File) bool {
	from, to := d.folder.Path(d.model), filepath.Join(d.dir, old.Path)
	if !old.Intact(from) || os.MkdirAll(filepath.Dir(to), 0o755) != nil { //nolint:gosec // other users' services may read models
		return false
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return os.Link(filepath.Join(from, old.Path), to) == nil && d.note(old.Path, old.SHA256, nanoseconds(old.Source)) == nil
}

func nanoseconds(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

func (d *Draft) note(path, sha256 string, source time.Time) error {
	info, err := os.Lstat(filepath.Join(d.dir, path))
	if err != nil {
		return err
	}
	f := File{Path: path, Size: info.Size(), Modified: info.ModTime().UnixNano(), SHA256: sha256}
	if !source.IsZero() {
		f.Source = source.UnixNano()
	}
	d.record = d.record.with(f)
	return Full(d.record.write(d.dir))
}

// Publish puts the model in its place, with the files of paths alone, all of which the draft has.
func (d *Draft) Publish(paths []string) error {
	keep := map[string]bool{recordName: true}
	var record Record
	for _, path := range paths {
		f, ok := d.record.Of(path)
		if !ok {
			return fmt.Errorf("%s: %s is missing", d.model, path)
		}
		record, keep[path] = record.with(f), true
	}
	if err := record.write(d.dir); err != nil {
		return Full(err)
	}
	var rest []string
	err := filepath.WalkDir(d.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(d.dir, name)
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return syncDir(name)
		case !keep[filepath.ToSlash(below)]:
			rest = append(rest, name)
		}
		return nil
	})
	for _, name := range rest {
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		return err
	}
	to := d.folder.Path(d.model)
	if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
		err = os.Rename(d.dir, to)
		return errors.Join(err, syncDir(d.folder.dir))
	}
	if err := exchange(d.dir, to); err != nil {
		return err
	}
	return errors.Join(syncDir(d.folder.dir), os.RemoveAll(d.dir))
}

// exchangeByRename puts a folder in the place of another, which has its place then; for a moment there is none.
func exchangeByRename(from, to string) error {
	aside := from + oldExt
	if err := errors.Join(os.RemoveAll(aside), os.Rename(to, aside)); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return errors.Join(err, os.Rename(aside, to))
	}
	return os.Rename(aside, from)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	_ = dir.Sync() // not every file system has it
	return nil
}

// DiscardDraft forgets what was begun of a model. The folder's lock is held.
func (f *Folder) DiscardDraft(model string) error {
	return os.RemoveAll(filepath.Join(f.state(), model+draftExt))
}

// verify reads the files of a model and lists those whose bytes are not what was put there, which the next draft does not reuse.
// read is told how many bytes of all were. The folder's lock is held.
func (f *Folder) verify(ctx context.Context, model string, read func(done, all int64)) (damaged []string, err error) {
	path := f.Path(model)
	record := ReadRecord(path)
	var done int64
	damaged, err = record.damaged(ctx, path, func(n int64) {
		done += n
		read(done, record.Bytes())
	})
	if err != nil || len(damaged) == 0 {
		return nil, err
	}
	for i := range record.Files {
		if slices.Contains(damaged, record.Files[i].Path) {
			record.Files[i].SHA256 = ""
		}
	}
	return damaged, record.write(path)
}
