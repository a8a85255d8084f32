// Package modelfolder is a folder of models that is filled while others read it: a model appears whole, is made by one process
// at a time, goes on where the one before stopped, and has a record of its files with their SHA-256. What is not a model lies in
// a folder of its own below it. The package may import stage.
package modelfolder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/triptych-serving/triptych/stage"
)

const (
	// stateName is the folder of what is no model: locks, leases and drafts.
	stateName = ".triptych"
	lockName  = "lock"
	// What a folder of the state is, behind the name of a model: being made, being removed, being replaced.
	draftExt = ".draft"
	goneExt  = ".gone"
	oldExt   = ".old"
	// lockPause is how long whoever waits for a lock does so before he looks again.
	lockPause = 100 * time.Millisecond
)

// Folder is a folder of models.
type Folder struct{ dir string }

// Open makes a folder, if it is not there, that this process can write to.
func Open(dir string) (*Folder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	f := &Folder{dir}
	if err := os.MkdirAll(f.state(), 0o755); err != nil { //nolint:gosec // other users' services may read models
		return nil, unwritable(dir, err)
	}
	if err := unix.Access(f.state(), unix.W_OK); err != nil {
		return nil, unwritable(dir, err)
	}
	return f, nil
}

func unwritable(dir string, err error) error {
	if wrong := (*fs.PathError)(nil); errors.As(err, &wrong) {
		err = wrong.Err
	}
	return fmt.Errorf("%s cannot be written by user %d: %w", dir, os.Geteuid(), err)
}

func (f *Folder) state() string { return filepath.Join(f.dir, stateName) }

// Path is where a model lies.
func (f *Folder) Path(model string) string { return filepath.Join(f.dir, model) }

// lock is held by whoever makes models in the folder. waiting is called once if another process has it. unlock gives it back, as
// the end of the process does.
func (f *Folder) lock(ctx context.Context, waiting func()) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(f.state(), lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644) //nolint:gosec // as above
	if err != nil {
		return nil, unwritable(f.dir, err)
	}
	for first := true; ; first = false {
		held, err := tryLock(file, unix.LOCK_EX)
		if held {
			if err := f.sweep(); err != nil {
				return nil, errors.Join(err, file.Close())
			}
			return func() { _ = file.Close() }, nil
		}
		if err == nil {
			if first {
				waiting()
			}
			select {
			case <-time.After(lockPause):
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		return nil, errors.Join(err, file.Close())
	}
}

// sweep removes what processes left that were killed while they removed it.
func (f *Folder) sweep() error {
	var failed error
	for _, ext := range []string{goneExt, draftExt + oldExt} {
		left, _ := filepath.Glob(filepath.Join(f.state(), "*"+ext))
		for _, path := range left {
			failed = errors.Join(failed, os.RemoveAll(path))
		}
	}
	return failed
}

// tryLock takes a lock of a kind on an open file, unless another process is in the way.
func tryLock(file *os.File, kind int) (held bool, err error) {
	for {
		switch err := unix.Flock(int(file.Fd()), kind|unix.LOCK_NB); {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, fmt.Errorf("lock of %s: %w", file.Name(), err)
		}
	}
}

// Models lists the models that have a record, sorted.
func (f *Folder) Models() ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Lstat(filepath.Join(f.Path(e.Name()), recordName)); err == nil && e.Name() != stateName {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Drafts lists the models that have been begun and not been finished.
func (f *Folder) Drafts() (models []string, err error) {
	paths, err := filepath.Glob(filepath.Join(f.state(), "*"+draftExt))
	for _, path := range paths {
		models = append(models, strings.TrimSuffix(filepath.Base(path), draftExt))
	}
	return models, err
}

// Room refuses what does not fit on the folder's disk. Errors are DiskFull.
func (f *Folder) Room(needed int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(f.dir, &st); err != nil {
		return nil //nolint:nilerr // a disk that does not tell is tried
	}
	if free := int64(st.Bavail) * int64(st.Bsize); needed > free { //nolint:unconvert // types differ between systems
		return stage.Errorf(stage.DiskFull, "%s has no room: %d bytes are needed and %d free", f.dir, needed, free)
	}
	return nil
}

// Full makes the error of a write DiskFull where that is what it is.
func Full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return stage.Errorf(stage.DiskFull, "no room: %w; what is there so far is kept", err)
	}
	return err
}

// IsFull tells whether an error is that of a disk without room.
func IsFull(err error) bool { return stage.ReasonOf(err) == stage.DiskFull }
