package limits

import (
	"errors"
	"io"
	"os"
	"time"
)

// DiskRead reads a file from its start to its end with nothing of it in the page cache, and returns the bytes and the
// seconds. The seconds are 0 where the page cache cannot be dropped.
func DiskRead(path string) (bytes int64, seconds float64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	switch err := dropCached(f); {
	case errors.Is(err, errors.ErrUnsupported):
		return 0, 0, nil
	case err != nil:
		return 0, 0, err
	}
	buf := make([]byte, 4<<20)
	start := time.Now()
	for {
		n, err := f.Read(buf)
		bytes += int64(n)
		if errors.Is(err, io.EOF) {
			return bytes, time.Since(start).Seconds(), nil
		}
		if err != nil {
			return bytes, 0, err
		}
	}
}

// DropCached takes files out of the page cache. It wraps errors.ErrUnsupported where the system has no way to.
func DropCached(paths ...string) error {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := errors.Join(dropCached(f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
