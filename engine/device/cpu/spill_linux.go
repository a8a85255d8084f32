package cpu

import (
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// diskRoom is what the file system of an open file has left for this process, in bytes.
func diskRoom(file *os.File) (bytes int64, known bool) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &st); err != nil || st.Bsize <= 0 {
		return 0, false
	}
	return int64(min(st.Bavail, math.MaxInt64/uint64(st.Bsize))) * st.Bsize, true
}
