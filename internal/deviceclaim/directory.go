package deviceclaim

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockName  = "lock"
	idName    = "id"
	recordExt = ".record"
	// maxRecords bounds a directory: more processes do not share a device.
	maxRecords = 4096
	// lockPatience is how long a change waits for the others', each of which takes well below a millisecond; only one
	// that is stopped in its middle, or a machine out of breath, takes longer.
	lockPatience = 2 * time.Second
	lockPause    = 500 * time.Microsecond
)

// ErrLocked is wrapped by errors of a directory that another process keeps locked; it may let go of it.
var ErrLocked = errors.New("another process holds the lock")

// DirectoryError is a directory that cannot be used.
type DirectoryError struct {
	Path     string
	Expected string
	Got      string
}

// Error reads "device claim: PATH: expected a directory that only its owner can write, got mode drwxrwxrwx".
func (e *DirectoryError) Error() string {
	return fmt.Sprintf("device claim: %s: expected %s, got %s", e.Path, e.Expected, e.Got)
}

// MakeOwn makes a directory for this user alone, if it is not there, and refuses one where others could take
// bytes away or make them up.
func MakeOwn(path string) error {
	err := os.MkdirAll(path, 0o700)
	if errors.Is(err, fs.ErrPermission) {
		return &DirectoryError{filepath.Dir(path), fmt.Sprintf("a directory that user %d can write to", os.Geteuid()), "one that it cannot"}
	}
	if err != nil {
		return fmt.Errorf("device claim: %w", err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("device claim: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("device claim: %s: %w", path, err)
	}
	switch uid := os.Geteuid(); {
	case !info.IsDir():
		return &DirectoryError{path, "a directory", "mode " + info.Mode().String()}
	case info.Mode().Perm()&0o022 != 0:
		return &DirectoryError{path, "a directory that only its owner can write", "mode " + info.Mode().String()}
	case int(st.Uid) != uid:
		return &DirectoryError{path, fmt.Sprintf("a directory of user %d", uid), fmt.Sprintf("one of user %d", st.Uid)}
	}
	return nil
}

// lock takes the lock that serialises all changes in a directory, which it makes if it has gone. unlock gives it back.
func lock(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, lockName)
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(lockPause) {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			if err = MakeOwn(dir); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("device claim: %w", err)
		}
		held, err := tryLock(file)
		if err == nil && held && same(file, path) {
			return func() { _ = file.Close() }, nil // which gives the lock back, whatever it says
		}
		_ = file.Close() // nothing was written
		if err != nil {
			return nil, fmt.Errorf("device claim: %s: %w", path, err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("device claim: %s: %w for %v already", path, ErrLocked, lockPatience)
		}
	}
}

// identity is the random id of a directory, made by the first who asks: the target of a symbolic link, which is there whole or
// not at all. The directory's lock is held.
func identity(dir string) (string, error) {
	path := filepath.Join(dir, idName)
	id, err := os.Readlink(path)
	if errors.Is(err, fs.ErrNotExist) {
		id = rand.Text()
		err = os.Symlink(id, path)
	}
	if err != nil {
		return "", fmt.Errorf("device claim: %w", err)
	}
	return id, nil
}

// same tells whether a path still names an open file: whoever cleans up may have removed it.
func same(file *os.File, path string) bool {
	open, err := file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(open, named)
}

// tryLock locks a file for as long as it is open, unless another holds it.
func tryLock(file *os.File) (held bool, err error) {
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, err
		}
	}
}

// create makes a record's file and holds it. The directory's lock is held.
func create(dir string, r record) (*os.File, error) {
	path := filepath.Join(dir, fmt.Sprintf("%d-%s%s", os.Getpid(), rand.Text(), recordExt))
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("device claim: %w", err)
	}
	held, err := tryLock(file)
	if err == nil && !held {
		err = errors.New("another process holds the lock of a new file")
	}
	if err == nil {
		_, err = file.WriteAt(r.encode(), 0)
	}
	if err != nil {
		_, _ = file.Close(), os.Remove(path)
		return nil, fmt.Errorf("device claim: %s: %w", path, err)
	}
	return file, nil
}

// others reads the records of a directory but for own, and removes those whose owners have died. The directory's lock
// is held, so nobody is writing. A record that is held and cannot be read is an error: nobody knows its bytes.
func others(dir string, own *os.File) ([]record, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("device claim: %w", err)
	}
	var out []record
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !strings.HasSuffix(e.Name(), recordExt) || !e.Type().IsRegular() || own != nil && path == own.Name() {
			continue
		}
		if len(out) == maxRecords {
			return nil, &DirectoryError{dir, fmt.Sprintf("at most %d records", maxRecords), "more"}
		}
		r, alive, err := look(path)
		if err != nil {
			return nil, fmt.Errorf("device claim: %s: %w", path, err)
		}
		if alive {
			out = append(out, r)
		}
	}
	return out, nil
}

// look reads the record at a path if somebody holds it, else removes it.
func look(path string) (r record, alive bool, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	defer file.Close()
	free, err := tryLock(file)
	if err != nil {
		return r, false, err
	}
	if free {
		return r, false, os.Remove(path)
	}
	data, err := io.ReadAll(io.NewSectionReader(file, 0, int64(recordBytes)+1))
	if err == nil {
		r, err = decode(data)
	}
	return r, true, err
}
