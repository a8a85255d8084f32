package limits

import (
	"os"

	"golang.org/x/sys/unix"
)

// adviseHuge asks for pages of 2 MiB, as the engine does for weights; without them small ones serve.
func adviseHuge(mem []byte) { _ = unix.Madvise(mem, unix.MADV_HUGEPAGE) }

// dropCached takes a file out of the page cache; what is not yet on the disk is written first, for it would stay.
func dropCached(f *os.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
