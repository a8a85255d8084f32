package limits

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCached takes a file out of the page cache; what is not yet on the disk is written first, for it would stay.
func dropCached(f *os.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
