package modelfolder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const leaseExt = ".lease"

func (f *Folder) lease(model string) string { return filepath.Join(f.state(), model+leaseExt) }

// Use marks a model as used now, if all of it is there, by sizes and times. Nobody removes it meanwhile, and there is a file for
// leases on it afterwards.
func (f *Folder) Use(model string) (record Record, ok bool, err error) {
	file, err := os.OpenFile(f.lease(model), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644) //nolint:gosec // other users' services take leases
	if err != nil {
		return Record{}, false, err
	}
	defer file.Close()
	if held, err := tryLock(file, unix.LOCK_SH); !held || err != nil {
		return Record{}, false, err // it is being removed
	}
	if record = ReadRecord(f.Path(model)); !record.Intact(f.Path(model)) {
		return Record{}, false, nil
	}
	mark(file.Name())
	return record, true, nil
}

// mark makes the model of a lease used now, where this process may write.
func mark(lease string) {
	now := time.Now()
	_ = os.Chtimes(lease, now, now)
}

// Used is when a model was used last, as far as that is known.
func (f *Folder) Used(model string) time.Time {
	info, err := os.Lstat(f.lease(model))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// Remove takes a model away, unless somebody serves it or used is not as it was; done tells whether it did. The folder's lock is
// held. Whoever looks at the folder meanwhile finds all of the model or none of it.
func (f *Folder) Remove(model string, used time.Time) (done bool, err error) {
	file, err := os.OpenFile(f.lease(model), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644) //nolint:gosec // as above
	if err != nil {
		return false, err
	}
	defer file.Close()
	held, err := tryLock(file, unix.LOCK_EX)
	if !held || err != nil {
		return false, err
	}
	if now := f.Used(model); !used.IsZero() && !now.Equal(used) {
		return false, nil
	}
	aside := filepath.Join(f.state(), model+goneExt)
	if err := errors.Join(os.RemoveAll(aside), os.Rename(f.Path(model), aside)); err != nil {
		return false, err
	}
	return true, os.RemoveAll(aside)
}

// InUse tells whether somebody serves a model.
func (f *Folder) InUse(model string) bool {
	file, err := os.Open(f.lease(model))
	if err != nil {
		return false
	}
	defer file.Close()
	held, err := tryLock(file, unix.LOCK_EX)
	return !held && err == nil
}

// Leases keep models that are served from being removed, for as long as their process lives. The zero value has none. Safe for
// concurrent use.
type Leases struct {
	mu   sync.Mutex
	held map[string]*os.File // by the path of the lease's file
}

// Hold has a lease on the models at paths, and on no others. A model whose folder gives no leases needs none. Files are opened for
// reading alone, so that a read-only mount will do; where it can, it marks the models as used now, which keeps them for a while behind
// the end of the process.
func (l *Leases) Hold(paths []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	wanted := map[string]bool{}
	var failed error
	for _, path := range paths {
		name := (&Folder{filepath.Dir(path)}).lease(filepath.Base(path))
		wanted[name] = true
		if l.held[name] != nil {
			mark(name)
			continue
		}
		file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			var held bool
			if held, err = tryLock(file, unix.LOCK_SH); held {
				if l.held == nil {
					l.held = map[string]*os.File{}
				}
				l.held[name] = file
				mark(name)
				continue
			}
			_ = file.Close() // the model is being removed, or locks do not work here
		}
		failed = errors.Join(failed, err)
	}
	for name, file := range l.held {
		if !wanted[name] {
			_ = file.Close()
			delete(l.held, name)
		}
	}
	return failed
}
